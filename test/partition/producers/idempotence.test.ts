import { describe, expect, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import { AppendLane } from '../../../src/partition/append-lane.js';
import type { Partition } from '../../../src/partition/partition.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { GatedLog } from '../gated-log.js';
import { batchOf, openPartition, overriding } from '../support.js';
import { producerBatch, type Sent } from './support.js';

const DURABLE = { acks: 'durable' } as const;
const WRITTEN = { acks: 'written' } as const;

const sendTo =
  (partition: Partition) =>
  (sent: Sent, options: Parameters<Partition['append']>[1] = WRITTEN): ReturnType<Partition['append']> =>
    partition.append([producerBatch(sent)], options);

describe('a batch that comes again', () => {
  test('is not appended, and answered with its offsets (invariant 6)', async () => {
    const { partition } = await openPartition();
    const send = sendTo(partition);
    await send({ sequence: 0, count: 3 });
    await send({ sequence: 3 });
    expect(await send({ sequence: 0, count: 3 })).toEqual({
      baseOffset: 0,
      lastOffset: 2,
      logAppendTimeMs: -1,
      logStartOffset: 0,
      duplicateCount: 3,
    });
    expect(partition.logEndOffset).toBe(4);
  });

  test('while the first one waits in the same queue is not appended either', async () => {
    const { partition } = await openPartition();
    const send = sendTo(partition);
    const results = await Promise.all([0, 1, 0, 2, 1].map((sequence) => send({ sequence }, DURABLE)));
    expect(results.map(({ baseOffset, duplicateCount }) => [baseOffset, duplicateCount])).toEqual([
      [0, 0],
      [1, 0],
      [0, 1],
      [2, 0],
      [1, 1],
    ]);
    expect(partition.logEndOffset).toBe(3);
  });

  test('is acknowledged as durable only when the first one is (invariant 2)', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const send = sendTo(partition);
    await send({ sequence: 0 });
    await send({ sequence: 1 });
    let durable = 0;
    // The second one first: those who wait are told by their offsets.
    const waiting = [1, 0].map((sequence) => send({ sequence }, DURABLE).then(() => durable++));
    await send({ sequence: 0 }, WRITTEN);
    await until(() => gated.flushes === 1, 'the sync has begun');
    expect(durable).toBe(0);
    gated.gates[0]?.open();
    await Promise.all(waiting);
    expect(partition.highWatermark).toBe(2);
  });

  test('does not wait for those that were appended after the first one', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const send = sendTo(partition);
    const first = send({ sequence: 0 }, DURABLE);
    await until(() => gated.flushes === 1, 'the sync of the first one has begun');
    let later = false;
    const second = send({ sequence: 1 }, DURABLE).then(() => {
      later = true;
    });
    const again = send({ sequence: 0 }, DURABLE);
    await until(() => gated.appends === 2, 'the second one is written');
    gated.gates[0]?.open();
    await Promise.all([first, again]);
    expect(later).toBe(false);
    await until(() => gated.flushes === 2, 'the second sync has begun');
    gated.gates[1]?.open();
    await second;
  });

  test('fails when the first one cannot be made durable', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const send = sendTo(partition);
    await send({ sequence: 0 });
    const waiting = send({ sequence: 0 }, DURABLE);
    await until(() => gated.flushes === 1, 'the sync has begun');
    gated.gates[0]?.fail(new LogError('STORAGE_ERROR', 'EIO'));
    await rejection(waiting, 'STORAGE_ERROR');
  });

  test('has the time of its first append', async () => {
    const { partition } = await openPartition({ logAppendTime: true });
    const send = sendTo(partition);
    const first = await send({ sequence: 0 });
    expect(first.logAppendTimeMs).toBeGreaterThan(0);
    expect(await send({ sequence: 0 })).toEqual({ ...first, duplicateCount: 1 });
  });

  test('is accepted whatever offset it expects', async () => {
    const { partition } = await openPartition();
    const send = sendTo(partition);
    await send({ sequence: 0 }, { ...WRITTEN, expectedOffset: 0 });
    expect(await send({ sequence: 0 }, { ...WRITTEN, expectedOffset: 0 })).toMatchObject({ baseOffset: 0 });
    await rejection(send({ sequence: 1 }, { ...WRITTEN, expectedOffset: 0 }), 'WRONG_OFFSET');
    // The offset is looked at before the sequence.
    await rejection(send({ sequence: 7 }, { ...WRITTEN, expectedOffset: 0 }), 'WRONG_OFFSET');
    expect(await send({ sequence: 1 }, { ...WRITTEN, expectedOffset: 1 })).toMatchObject({ baseOffset: 1 });
  });
});

describe('several batches in one append', () => {
  const three = (from: number): Buffer[] => [0, 1, 2].map((i) => producerBatch({ sequence: from + i }));

  test('are checked one after the other', async () => {
    const { partition } = await openPartition();
    expect(await partition.append(three(0), WRITTEN)).toMatchObject({ baseOffset: 0, lastOffset: 2 });
    expect(await partition.append(three(0), WRITTEN)).toMatchObject({
      baseOffset: 0,
      lastOffset: 2,
      duplicateCount: 3,
    });
  });

  test('are all refused when one is', async () => {
    const { partition } = await openPartition();
    const [first, , third] = three(0);
    await rejection(partition.append([first!, third!], WRITTEN), 'OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(partition.logEndOffset).toBe(0);
    expect(partition.producers()).toEqual([]);
    expect(await partition.append(three(0), WRITTEN)).toMatchObject({ duplicateCount: 0 });
  });

  test('are refused when only some are there already: one range of offsets could not tell where', async () => {
    const { partition } = await openPartition();
    await partition.append([producerBatch({ sequence: 0 })], WRITTEN);
    expect(await rejection(partition.append(three(0), WRITTEN), 'INVALID_RECORD')).toMatchObject({ outcome: 'none' });
    await partition.append([batchOf(['between'])], WRITTEN);
    await partition.append([producerBatch({ sequence: 1 })], WRITTEN);
    const apart = [0, 1].map((sequence) => producerBatch({ sequence }));
    await rejection(partition.append(apart, WRITTEN), 'INVALID_RECORD');
    expect(partition.logEndOffset).toBe(3);
    await partition.append([producerBatch({ sequence: 2 })], WRITTEN);
  });
});

describe('an append that the log does not take', () => {
  test('leaves the producer as it was, and so do those that built on it', async () => {
    const gated = new GatedLog();
    const { partition } = await openPartition({}, (log) => gated.wrap(log));
    const send = sendTo(partition);
    await send({ sequence: 0 });
    gated.failNextAppend = new LogError('STORAGE_FULL', 'no room');
    const failing = [1, 2, 1].map((sequence) => rejection(send({ sequence }), 'STORAGE_FULL'));
    // What repeats a batch of before does not depend on it.
    expect(await send({ sequence: 0 })).toMatchObject({ baseOffset: 0, duplicateCount: 1 });
    await Promise.all(failing);
    expect(partition.producers()).toMatchObject([{ producerId: 1, lastSequence: 0 }]);
    expect(await send({ sequence: 1 })).toMatchObject({ baseOffset: 1, duplicateCount: 0 });
    await rejection(send({ sequence: 1, epoch: -1 }), 'INVALID_RECORD');
  });

  test('and perhaps has all the same is not acknowledged when it comes again (invariants 1, 3)', async () => {
    let broken = false;
    const failure = new LogError('STORAGE_ERROR', 'EIO');
    const { partition } = await openPartition({}, (log) =>
      overriding(log, {
        append: (batches, at) => (broken ? Promise.reject(failure) : log.append(batches, at)),
      }),
    );
    const send = sendTo(partition);
    await send({ sequence: 0 });
    broken = true;
    for (let attempt = 0; attempt < 2; attempt++) await rejection(send({ sequence: 1 }), 'STORAGE_ERROR');
    expect(await send({ sequence: 0 })).toMatchObject({ baseOffset: 0, duplicateCount: 1 });
  });

  test('stops those behind it in its lane', async () => {
    const { partition } = await openPartition();
    const send = sendTo(partition);
    const lane = new AppendLane();
    await send({ sequence: 0 }, { ...WRITTEN, place: lane.enter() });
    const gap = send({ sequence: 2 }, { ...WRITTEN, place: lane.enter() });
    const behind = send({ sequence: 0 }, { ...WRITTEN, place: lane.enter() });
    await rejection(gap, 'OUT_OF_ORDER_SEQUENCE_NUMBER');
    await rejection(behind, 'PRECEDING_APPEND_FAILED');
  });
});

test('what is wrong with the records is said before what is wrong with the sequence', async () => {
  const { partition } = await openPartition({ cleanupCompact: true });
  await rejection(sendTo(partition)({ sequence: 0, transactional: true, epoch: 3 }), 'INVALID_RECORD');
  await rejection(partition.append([producerBatch({ sequence: 5, transactional: true })], WRITTEN), 'INVALID_RECORD');
  expect(partition.producers()).toEqual([]);
});
