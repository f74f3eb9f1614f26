/** What readers see of transactions, in both formats; the partition is real, its batches are written by hand. */
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { attributesOf, baseOffsetOf, isControl, sizeInBytesOf } from '../../../src/batch/layout.js';
import { listOffsets, type OffsetSpec } from '../../../src/broker/list-offsets.js';
import { Partition } from '../../../src/partition/partition.js';
import type { FetchedPartition, FetchStreamResponse, IsolationLevelName } from '../../../src/rpc/messages.js';
import { fromServiceError } from '../../../src/rpc/status-codec.js';
import { fc } from '../../support/properties.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { openTransactionalLog, Sender, TOPIC, type TransactionalLog } from './transactional-log.js';

const COMMITTED = 'ISOLATION_LEVEL_READ_COMMITTED' as const;
const UNCOMMITTED = 'ISOLATION_LEVEL_READ_UNCOMMITTED' as const;
const RECORDS = 'RECORD_FORMAT_RECORDS' as const;
/** Longer than any test takes: whatever comes before was woken up for. */
const LONG_MS = 60_000;

let log: TransactionalLog;
let first: Sender;
let second: Sender;

beforeEach(async () => {
  log = await openTransactionalLog();
  onTestFinished(() => log.stop());
  first = new Sender(log.partition, 100);
  second = new Sender(log.partition, 200);
});

function valuesOf({ records }: FetchedPartition): string[] {
  return records.map(({ value }) => value?.toString() ?? '');
}

/** Base offsets of the data batches, without those that `abortedTransactions` tells a client to skip. */
function shownBatches({ batches, abortedTransactions }: FetchedPartition): number[] {
  const shown: number[] = [];
  for (let at = 0; at < batches.length; at += sizeInBytesOf(batches, at)) {
    if (isControl(attributesOf(batches, at))) continue;
    const base = baseOffsetOf(batches, at);
    const id = Number(batches.readBigInt64BE(at + 43));
    const isAborted = abortedTransactions.some(
      (one) => one.producerId === id && one.firstOffset <= base && base <= one.lastOffset,
    );
    if (!isAborted) shown.push(base);
  }
  return shown;
}

interface Stream {
  readonly messages: FetchedPartition[];
  readonly ended: () => boolean;
  cancel(): void;
}

function stream(fields: object, position: object = {}): Stream {
  const messages: FetchedPartition[] = [];
  let ended = false;
  const call = log.raw.fetchStream({ positions: [{ topic: TOPIC, partition: 0, offset: 0, ...position }], ...fields });
  call.on('data', ({ partition }: FetchStreamResponse) => messages.push(partition));
  call.on('error', () => undefined);
  call.on('end', () => {
    ended = true;
  });
  return { messages, ended: () => ended, cancel: () => call.cancel() };
}

/** Everything up to `endOffset`. */
async function readTo(endOffset: number, fields: object): Promise<FetchedPartition[]> {
  const { messages, ended } = stream(fields, { endOffset });
  await until(ended, 'the stream ends');
  return messages;
}

/** Offsets: 0 1 committed, 2 marker, 3 plain, 4 aborted, 5 marker, 6 committed, 7 marker, 8 open, 9 plain. */
async function writeOneOfEach(): Promise<void> {
  await first.send('a', 'b');
  await first.end(true);
  await log.plain('c');
  await first.send('no');
  await first.end(false);
  await second.send('d');
  await second.end(true);
  await first.send('open');
  await log.plain('later');
}

describe('a reader of committed records', () => {
  beforeEach(writeOneOfEach);

  test('gets batches up to the last stable offset, and told what to skip', async () => {
    const messages = await readTo(8, {});
    expect(messages).toHaveLength(1);
    expect(messages[0]).toMatchObject({
      nextOffset: 8,
      lastStableOffset: 8,
      highWatermark: 10,
      abortedTransactions: [{ producerId: 100, firstOffset: 4, lastOffset: 5 }],
    });
    const fetched = await log.raw.fetchOne(TOPIC, 0);
    expect(fetched).toMatchObject({ ...messages[0] });
    expect(shownBatches(fetched)).toEqual([0, 3, 6]);
  });

  test('gets plain records without what was aborted, and is never held up by what there is nothing to show of', async () => {
    const inOne = await log.raw.fetchOne(TOPIC, 0, { format: RECORDS });
    expect([valuesOf(inOne), inOne.nextOffset, inOne.abortedTransactions]).toEqual([['a', 'b', 'c', 'd'], 8, []]);
    // Batch by batch: some messages have no record, and tell where to read on all the same.
    const messages = await readTo(8, { format: RECORDS, maxBytes: 1 });
    expect(messages.map((each) => [valuesOf(each).join(), each.nextOffset])).toEqual([
      ['a,b', 2],
      ['', 3],
      ['c', 4],
      ['', 5],
      ['', 6],
      ['d', 7],
      ['', 8],
    ]);
  });

  test.each([
    ['behind the last record of a transaction', 2, 2],
    ['behind a marker', 3, 3],
    ['inside of what was aborted', 5, 5],
  ])('is done %s', async (_where, endOffset, nextOffset) => {
    for (const format of ['RECORD_FORMAT_BATCHES', RECORDS]) {
      const messages = await readTo(endOffset, { format, maxBytes: 1 });
      expect(messages.at(-1)?.nextOffset).toBe(nextOffset);
    }
  });

  test('may begin at a marker, and in the middle of what was aborted', async () => {
    await first.end(false);
    await first.send('x', 'y');
    await first.send('z');
    await first.end(false);
    const { partition } = log;
    expect(partition.lastStableOffset).toBe(15);
    for (let offset = 0; offset <= 15; offset++) {
      const plain = await log.raw.fetchOne(TOPIC, offset, { format: RECORDS });
      expect([offset, valuesOf(plain).length, plain.nextOffset]).toEqual([
        offset,
        [5, 4, 3, 3, 2, 2, 2, 1, 1, 1][offset] ?? 0,
        15,
      ]);
      expect(shownBatches(await log.raw.fetchOne(TOPIC, offset)).filter((base) => base > 9)).toEqual([]);
    }
  });

  test('gets nothing at and beyond the last stable offset', async () => {
    for (const offset of [8, 9, 10]) {
      const { batches, nextOffset } = await log.raw.fetchOne(TOPIC, offset);
      expect([batches.length, nextOffset]).toEqual([0, offset]);
    }
  });
});

test('a reader of uncommitted records gets everything up to the high watermark, but no marker as a record', async () => {
  await writeOneOfEach();
  const fields = { isolationLevel: UNCOMMITTED };
  const plain = await log.raw.fetchOne(TOPIC, 0, { ...fields, format: RECORDS });
  expect(valuesOf(plain)).toEqual(['a', 'b', 'c', 'no', 'd', 'open', 'later']);
  expect(plain).toMatchObject({ nextOffset: 10, lastStableOffset: 8 });
  const [message, ...more] = await readTo(10, fields);
  expect(more).toEqual([]);
  expect(message).toMatchObject({ nextOffset: 10, abortedTransactions: [] });
});

test('of transactions that overlap, each is shown or not by its own marker', async () => {
  await first.send('no');
  await second.send('yes');
  await second.end(true);
  expect(valuesOf(await log.raw.fetchOne(TOPIC, 0, { format: RECORDS }))).toEqual([]);
  await first.send('no');
  await second.send('later');
  await first.end(false);
  const plain = await log.raw.fetchOne(TOPIC, 0, { format: RECORDS });
  expect([valuesOf(plain), plain.nextOffset]).toEqual([['yes'], 4]);
  expect(shownBatches(await log.raw.fetchOne(TOPIC, 0))).toEqual([1]);
});

const step = fc.record({
  sender: fc.nat(2),
  what: fc.constantFrom('send', 'send', 'send', 'commit', 'abort', 'plain'),
});

test('whatever transactions were mixed, from wherever it is read: what was committed is shown, once, in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), fc.nat(40), async (steps, from) => {
      const mixed = await openTransactionalLog();
      try {
        const senders = [1, 2, 3].map((id) => new Sender(mixed.partition, id));
        const open = new Map<Sender, number[]>();
        const shown = new Set<number>();
        for (const { sender: index, what } of steps) {
          const sender = senders[index]!;
          if (what === 'plain') shown.add(await mixed.plain('p'));
          else if (what === 'send') open.set(sender, [...(open.get(sender) ?? []), await sender.send('v')]);
          else if (open.has(sender)) {
            await sender.end(what === 'commit');
            if (what === 'commit') for (const offset of open.get(sender) ?? []) shown.add(offset);
            open.delete(sender);
          }
        }
        const { lastStableOffset: end, highWatermark } = mixed.partition;
        const firstOpen = Math.min(highWatermark, ...[...open.values()].map(([offset = 0]) => offset));
        expect(end).toBe(firstOpen);
        const start = Math.min(from, end);
        const expected = [...shown].filter((offset) => offset >= start && offset < end).sort((a, b) => a - b);
        const batches: number[] = [];
        const plain: number[] = [];
        for (let at = start; at < end; ) {
          const part = await mixed.raw.fetchOne(TOPIC, at, { maxBytes: 200 });
          batches.push(...shownBatches(part));
          const records = await mixed.raw.fetchOne(TOPIC, at, { maxBytes: 200, format: RECORDS });
          plain.push(...records.records.map(({ offset }) => offset));
          expect(records.nextOffset).toBe(part.nextOffset);
          at = part.nextOffset;
        }
        expect({ batches, plain }).toEqual({ batches: expected, plain: expected });
      } finally {
        await mixed.stop();
      }
    }),
    { numRuns: 30 },
  );
});

describe('whoever waits behind an open transaction', () => {
  /** Resolves when somebody listens at the partition. */
  function spyOnWaiting(): { readonly count: number } {
    const spy = vi.spyOn(Partition.prototype, 'onAdvance');
    onTestFinished(() => spy.mockRestore());
    return {
      get count(): number {
        return spy.mock.calls.length;
      },
    };
  }

  beforeEach(async () => {
    await first.send('a');
  });

  test.each([
    ['batches', 'commits', true],
    ['batches', 'aborts', false],
    ['plain records', 'commits', true],
    ['plain records', 'aborts', false],
  ])('in a long poll for %s is answered when it %s, though nobody else writes', async (what, _how, commit) => {
    const waiting = spyOnWaiting();
    const format = what === 'batches' ? 'RECORD_FORMAT_BATCHES' : RECORDS;
    const answer = log.raw.fetchOne(TOPIC, 0, { maxWaitMs: LONG_MS, format });
    await until(() => waiting.count > 0, 'it waits');
    await first.end(commit);
    const fetched = await answer;
    expect(fetched.nextOffset).toBe(2);
    if (format === RECORDS) expect(valuesOf(fetched)).toEqual(commit ? ['a'] : []);
    else expect(shownBatches(fetched)).toEqual(commit ? [0] : []);
  });

  test.each([
    ['commits', true, ['a']],
    ['aborts', false, []],
  ])('with a stream is told when it %s, though nobody else writes', async (_how, commit, values) => {
    const waiting = spyOnWaiting();
    const streams = [stream({ format: RECORDS }), stream({})];
    await until(() => waiting.count === 2, 'they wait');
    await first.end(commit);
    await until(() => streams.every(({ messages }) => messages.at(-1)?.nextOffset === 2), 'both are behind the marker');
    const [plain] = streams;
    expect(plain?.messages.flatMap(valuesOf)).toEqual(values);
    for (const { cancel } of streams) cancel();
  });

  test('with a stream that ends there is done when it aborts', async () => {
    const bounded = stream({ format: RECORDS }, { endOffset: 2 });
    await first.end(false);
    await until(bounded.ended, 'the stream ends');
  });
});

test('a level that there is not is refused', async () => {
  const request = { isolationLevel: 7 as unknown as IsolationLevelName };
  await rejection(log.raw.fetchOne(TOPIC, 0, request), 'INVALID_REQUEST');
  const call = log.raw.fetchStream({ positions: [{ topic: TOPIC, partition: 0, offset: 0 }], ...request });
  const failed = new Promise<Error>((resolve) => call.on('error', resolve));
  call.resume();
  await rejection(
    failed.then((error) => Promise.reject(fromServiceError(error))),
    'INVALID_REQUEST',
  );
});

describe('offsets that are looked up', () => {
  const T0 = 1_700_000_000_000;

  async function find(spec: OffsetSpec, isolation?: 'read_committed'): Promise<number | undefined> {
    const [answer] = await listOffsets(log.topics, { topic: TOPIC, partitions: [], spec, isolation });
    return answer?.offset;
  }

  beforeEach(async () => {
    first.nowMs = T0;
    second.nowMs = T0 + 1000;
    await first.send('a');
    await first.end(true);
    await second.send('open');
    first.nowMs = T0 + 2000;
    await first.send('b');
    await first.end(true);
  });

  test('reading committed end at the last stable offset', async () => {
    expect([await find({ kind: 'latest' }), await find({ kind: 'latest' }, 'read_committed')]).toEqual([5, 2]);
    const later: OffsetSpec = { kind: 'time', timestampMs: T0 + 1 };
    expect([await find(later), await find(later, 'read_committed')]).toEqual([2, 2]);
    const latest: OffsetSpec = { kind: 'latest-by-timestamp' };
    expect([await find(latest), await find(latest, 'read_committed')]).toEqual([3, 0]);
    await second.end(true);
    expect(await find({ kind: 'latest' }, 'read_committed')).toBe(6);
    expect(await find(latest, 'read_committed')).toBe(3);
  });

  test('by time never name a marker, whose time is that of its append', async () => {
    await second.end(false);
    expect(await find({ kind: 'time', timestampMs: T0 + 2001 })).toBe(6);
    expect(await find({ kind: 'latest-by-timestamp' })).toBe(3);
  });

  test('a time that only an open transaction has gives the last stable offset without a timestamp', async () => {
    const spec: OffsetSpec = { kind: 'time', timestampMs: T0 + 500 };
    const answers = await listOffsets(log.topics, { topic: TOPIC, partitions: [0], spec, isolation: 'read_committed' });
    expect(answers).toEqual([{ partition: 0, offset: 2, timestampMs: undefined }]);
  });
});

test(`${COMMITTED} is the default of fetches`, async () => {
  await writeOneOfEach();
  const told = await log.raw.fetchOne(TOPIC, 0, { isolationLevel: COMMITTED });
  expect(await log.raw.fetchOne(TOPIC, 0)).toEqual(told);
});
