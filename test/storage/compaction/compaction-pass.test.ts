import { describe, expect, it } from 'vitest';
import {
  attributesOf,
  baseOffsetOf,
  baseTimestampOf,
  CODECS,
  hasDeleteHorizon,
  maxTimestampOf,
  setLogAppendTime,
} from '../../../src/batch/layout.js';
import { openRecords } from '../../../src/batch/records.js';
import { CompactionPass, emptied, type PassOptions } from '../../../src/storage/compaction/compaction-pass.js';
import { BYTES_PER_SLOT } from '../../../src/storage/compaction/key-map.js';
import { altered, VECTORS, withSection } from '../../batch/support.js';
import {
  abort,
  byProducer,
  commit,
  compressed,
  control,
  DAY,
  HOUR,
  inTransaction,
  keyed,
  readRecords,
  recordsOf,
  runPass,
  sourceOf,
  T0,
} from './support.js';

const OPTIONS: PassOptions = {
  firstDirty: 0,
  upTo: 1,
  nowMs: T0,
  deleteRetentionMs: 1,
  producerExpirationMs: 1,
  maxMapBytes: 1,
};

describe('a pass over keyed records', () => {
  it('keeps the latest record of each key, at its offset', async () => {
    const { batches, pass } = await runPass([
      keyed(0, ['a=1', 'b=1', 'a=2']),
      keyed(3, ['c=1']),
      keyed(4, ['a=3', 'c=2']),
    ]);
    expect(await recordsOf(batches)).toEqual(['1:b=1', '4:a=3', '5:c=2']);
    expect(pass.cleanedOffset).toBe(6);
    expect(pass.counters).toEqual({ recordsBefore: 6, recordsAfter: 3, unreadableBatches: 0 });
    expect(batches).toHaveLength(2);
  });

  it('drops records without a key', async () => {
    const { results } = await runPass([keyed(0, ['=1', 'a=1', '=2']), keyed(3, ['=3'])]);
    expect(await recordsOf([results[0]!])).toEqual(['1:a=1']);
    expect(results[1]).toBeUndefined();
  });

  it('tells an empty key from none', async () => {
    const empty = withSection(VECTORS.A, Buffer.from('0e00000000027600', 'hex'));
    const { results, pass } = await runPass([empty, keyed(1, ['=1'])]);
    expect(results).toEqual([empty, undefined]);
    expect(pass.counters.unreadableBatches).toBe(0);
  });

  it('hands out the same buffer when nothing of a batch goes', async () => {
    const batch = keyed(0, ['a=1', 'b=1']);
    const { results } = await runPass([batch, keyed(2, ['c=1'])]);
    expect(results[0]).toBe(batch);
  });

  it('lets records below the dirty range be superseded by it, and nothing be superseded by them', async () => {
    const batches = [keyed(0, ['a=1', 'b=1']), keyed(2, ['a=2', 'c=1']), keyed(4, ['c=2', 'd=1'])];
    const { batches: left } = await runPass(batches, { firstDirty: 2 });
    expect(await recordsOf(left)).toEqual(['1:b=1', '2:a=2', '4:c=2', '5:d=1']);
  });

  it('leaves everything from its end on as it is', async () => {
    const batches = [keyed(0, ['a=1']), keyed(1, ['a=2']), keyed(2, ['a=3', 'a=4', '=5', 'b'])];
    const { results, pass } = await runPass(batches, { upTo: 2 });
    expect(pass.cleanedOffset).toBe(2);
    expect(results).toEqual([undefined, batches[1], batches[2]]);
    expect(results[2]).toBe(batches[2]);
  });

  it('ends at the record whose key does not fit into the map any more, and gets on by several passes', async () => {
    const batches = [keyed(0, ['a=1', 'b=1', 'a=2', 'c=1', 'd=1', 'a=3']), keyed(6, ['d=2', 'b=2', 'e=1'])];
    const first = await runPass(batches, { maxMapBytes: 4 * BYTES_PER_SLOT });
    expect(first.pass.cleanedOffset).toBe(4);
    expect(await recordsOf(first.batches)).toEqual([
      '1:b=1',
      '2:a=2',
      '3:c=1',
      '4:d=1',
      '5:a=3',
      '6:d=2',
      '7:b=2',
      '8:e=1',
    ]);
    const options = { firstDirty: 4, upTo: 9, maxMapBytes: 0 };
    const second = await runPass(first.batches, options);
    expect(second.pass.cleanedOffset).toBe(8);
    expect(await recordsOf(second.batches)).toEqual(['3:c=1', '5:a=3', '6:d=2', '7:b=2', '8:e=1']);
    const third = await runPass(second.batches, { ...options, firstDirty: 8 });
    expect(third.pass.cleanedOffset).toBe(9);
    expect(await recordsOf(third.batches)).toEqual(['3:c=1', '5:a=3', '6:d=2', '7:b=2', '8:e=1']);
  });

  it('keeps what has no key while it lies beyond the end', async () => {
    const { batches, pass } = await runPass([keyed(0, ['=1', 'a=1', 'b=1', 'a=2', 'c=1', 'd=1', '=2'])], {
      maxMapBytes: 0,
    });
    expect(pass.cleanedOffset).toBe(5);
    expect(await recordsOf(batches)).toEqual(['2:b=1', '3:a=2', '4:c=1', '5:d=1', '6:=2']);
  });

  it('does nothing with an empty range', async () => {
    const batch = keyed(0, ['a=1', 'a=2']);
    const { results, pass } = await runPass([batch], { firstDirty: 2, upTo: 2 });
    expect(pass.cleanedOffset).toBe(2);
    expect(results).toEqual([batch]);
    const none = await runPass([]);
    expect(none.pass.cleanedOffset).toBe(0);
  });

  it.each(CODECS)('rewrites batches in their own codec: %s', async (codec) => {
    const batch = await compressed(10, ['a=1', 'b=1', 'c=1', 'd'], { codec, ...byProducer(7, 3) });
    const before = await readRecords(batch);
    const { results } = await runPass([batch, await compressed(14, ['a=2', 'c=2'], { codec })], { firstDirty: 10 });
    const after = results[0]!;
    expect(attributesOf(after, 0) & 7).toBe(CODECS.indexOf(codec));
    expect(await readRecords(after)).toEqual([before[1], before[3]]);
    const again = await runPass([after, results[1]!], { nowMs: T0 + 3 * DAY, firstDirty: 10 });
    expect(await readRecords(again.results[0]!)).toEqual([before[1]]);
  });

  it('answers at once for batches that are not compressed', async () => {
    const { pass } = await runPass([keyed(0, ['a=1', 'a=2'])]);
    expect(pass.clean(keyed(0, ['a=1', 'a=2']))).toBeInstanceOf(Buffer);
  });
});

describe('times', () => {
  it('keeps the times of records, and makes the largest that of those left', async () => {
    const batch = keyed(0, ['a=1', 'b=1', 'c=1'], { timestampMs: T0 + 100 });
    const { results } = await runPass([batch, keyed(3, ['c=2'])]);
    expect(maxTimestampOf(results[0]!, 0)).toBe(T0 + 101);
    expect((await readRecords(results[0]!)).map((record) => record.timestampMs)).toEqual([T0 + 100, T0 + 101]);
  });

  it('keeps records without a time so, also under a delete horizon', async () => {
    const batch = keyed(0, ['a=1', 'b', 'c=1'], { timestampMs: -1 });
    const { results } = await runPass([batch, keyed(3, ['a=2'])]);
    expect(maxTimestampOf(results[0]!, 0)).toBe(-1);
    expect(hasDeleteHorizon(attributesOf(results[0]!, 0))).toBe(true);
    expect((await readRecords(results[0]!)).map((record) => record.timestampMs)).toEqual([-1, -1]);
  });

  it('leaves the append time of a batch alone', async () => {
    const batch = keyed(0, ['a=1', 'b=1', 'c']);
    setLogAppendTime(batch, 0, T0 + 5000);
    const { results } = await runPass([batch, keyed(3, ['b=2'])]);
    expect(attributesOf(results[0]!, 0)).toBe(0x48);
    expect(maxTimestampOf(results[0]!, 0)).toBe(T0 + 5000);
    expect((await readRecords(results[0]!)).map(({ key, timestampMs }) => [key, timestampMs])).toEqual([
      ['a', T0 + 5000],
      ['c', T0 + 5000],
    ]);
  });

  it('keeps a batch as it is whose times cannot be told relative to a horizon', async () => {
    // A delta of 2^62.
    const body = Buffer.from('2200feffffffffffffff7f00026b0100', 'hex');
    body[0] = (body.length - 1) * 2;
    const batch = withSection(VECTORS.A, body);
    const { results, pass } = await runPass([batch]);
    expect(results[0]).toBe(batch);
    expect(pass.counters.unreadableBatches).toBe(1);
  });
});

describe('tombstones', () => {
  const retention = { deleteRetentionMs: 1000 };

  it('get a delete horizon from the pass that meets them first, and go once it has come', async () => {
    const batch = keyed(0, ['a=1', 'b', 'c=1']);
    const first = await runPass([batch, keyed(3, ['a=2'])], { ...retention, nowMs: T0 + 10 });
    const marked = first.results[0]!;
    expect(attributesOf(marked, 0)).toBe(0x40);
    expect(baseTimestampOf(marked, 0)).toBe(T0 + 1010);
    const before = await readRecords(batch);
    expect(await readRecords(marked)).toEqual(before.slice(1));

    const early = await runPass(first.batches, { ...retention, nowMs: T0 + 1009 });
    expect(early.results[0]).toBe(marked);
    const late = await runPass(first.batches, { ...retention, nowMs: T0 + 1010 });
    expect(await readRecords(late.results[0]!)).toEqual(before.slice(2));
    // What is left still tells its times relative to the horizon.
    expect(baseTimestampOf(late.results[0]!, 0)).toBe(T0 + 1010);
  });

  it('give their batch a horizon also when nothing else changes', async () => {
    const { results } = await runPass([keyed(0, ['a', 'b=1'])], {
      nowMs: T0,
      deleteRetentionMs: Number.MAX_SAFE_INTEGER,
    });
    expect(baseTimestampOf(results[0]!, 0)).toBe(8.64e15);
    expect((await readRecords(results[0]!)).map((record) => record.timestampMs)).toEqual([T0, T0 + 1]);
  });

  it('go like every record when a later one takes their place, and remove earlier ones', async () => {
    const { batches } = await runPass([keyed(0, ['a=1', 'b=1']), keyed(2, ['a', 'b']), keyed(4, ['a=2'])]);
    expect(await recordsOf(batches)).toEqual(['3:b', '4:a=2']);
  });

  it('are not taken for clean while the rest of their batch is not', async () => {
    const batch = keyed(0, ['a', 'b=1', 'c=1', 'd']);
    const { results, pass } = await runPass([batch], { maxMapBytes: 0 });
    expect(pass.cleanedOffset).toBe(3);
    expect(results[0]).toBe(batch);
  });
});

describe('batches that lose all their records', () => {
  it('leave a header, byte for byte as Kafka writes it', () => {
    const batch = keyed(20, ['a', 'b', 'c', 'd', 'e'], { timestampMs: T0 - 4, ...byProducer(4242, 12) });
    const described = altered(batch, (copy) => {
      copy.writeInt32BE(0, 12);
      copy.writeInt16BE(0x44, 21);
      copy.writeInt16BE(3, 51);
    });
    expect(emptied(described).equals(altered(VECTORS.E, (copy) => copy.writeInt32BE(0, 12)))).toBe(true);
    expect(emptied(VECTORS.E)).toBe(VECTORS.E);
  });

  it('disappear when no producer needs them', async () => {
    const { results } = await runPass([keyed(0, ['a=1', 'b=1']), keyed(2, ['a=2', 'b=2'])]);
    expect(results[0]).toBeUndefined();
  });

  it('stay as a header while they hold the last sequence of an active producer', async () => {
    const last = keyed(2, ['a=2'], byProducer(7, 2));
    const batches = [keyed(0, ['a=1', 'b=1'], byProducer(7, 0)), last, keyed(3, ['a=3', 'b=3'])];
    const first = await runPass(batches);
    expect(first.results).toEqual([undefined, emptied(last), batches[2]]);
    // Judged again, with nothing of the producer in the new range, and after the producer has expired.
    const again = await runPass(first.batches, { firstDirty: 4 });
    expect(again.results[0]).toBe(first.batches[0]);
    const expiry = maxTimestampOf(last, 0) + DAY;
    expect((await runPass(first.batches, { firstDirty: 4, nowMs: expiry })).results[0]).toBe(first.batches[0]);
    expect((await runPass(first.batches, { firstDirty: 4, nowMs: expiry + 1 })).results[0]).toBeUndefined();
  });

  it('go with the header once the producer has written again', async () => {
    const header = emptied(keyed(2, ['a=2'], byProducer(7, 2)));
    const { results } = await runPass([header, keyed(3, ['x=1'], byProducer(7, 3))], { firstDirty: 3 });
    expect(results[0]).toBeUndefined();
  });

  it('keep transactional bit and producer, and lose codec and horizon', async () => {
    const batch = await compressed(0, ['a'], { codec: 'gzip', ...inTransaction(7) });
    const marked = await runPass([batch, commit(1, 7)], { deleteRetentionMs: 0, nowMs: T0 });
    expect(attributesOf(marked.results[0]!, 0)).toBe(0x51);
    const { results } = await runPass(marked.batches, { nowMs: T0 });
    expect(attributesOf(results[0]!, 0)).toBe(0x10);
    expect(results[0]).toHaveLength(61);
    expect([baseTimestampOf(results[0]!, 0), maxTimestampOf(results[0]!, 0)]).toEqual([-1, T0]);
  });
});

describe('transactions', () => {
  it('that were aborted neither stay nor take the place of anything', async () => {
    const { results } = await runPass([
      keyed(0, ['a=1', 'b=1']),
      keyed(2, ['a=aborted'], inTransaction(7)),
      keyed(3, ['b=2'], inTransaction(8)),
      abort(4, 7),
      commit(5, 8),
      keyed(6, ['z=1'], byProducer(7)),
    ]);
    const [first, , second, , , third] = results;
    expect(await recordsOf([first!, second!, third!])).toEqual(['0:a=1', '3:b=2', '6:z=1']);
    expect(results[1]).toBeUndefined();
  });

  it('are told apart by the next marker of their producer', async () => {
    const history = [
      keyed(0, ['a=1'], inTransaction(7)),
      commit(1, 7),
      keyed(2, ['b=1'], inTransaction(7)),
      abort(3, 7),
      keyed(4, ['c=1'], inTransaction(7)),
      abort(5, 7),
      keyed(6, ['d=1'], inTransaction(7)),
      commit(7, 7),
      keyed(8, ['e=1'], byProducer(7)),
    ];
    const { batches } = await runPass(history);
    const data = batches.filter((batch) => (attributesOf(batch, 0) & 0x20) === 0);
    expect(await recordsOf(data)).toEqual(['0:a=1', '6:d=1', '8:e=1']);
  });

  it('below the dirty range are not judged by the markers in it', async () => {
    const history = [
      keyed(0, ['a=1'], inTransaction(7)),
      commit(1, 7),
      keyed(2, ['b=1'], inTransaction(7)),
      abort(3, 7),
    ];
    const { results } = await runPass(history, { firstDirty: 2 });
    expect(results[0]).toBe(history[0]);
    expect(results[2]).toHaveLength(61);
  });

  it('whose marker is out of reach end the pass, so that nothing is dropped in their favour', async () => {
    const history = [
      keyed(0, ['a=1', 'b=1']),
      keyed(2, ['b=2']),
      keyed(3, ['a=aborted'], inTransaction(7)),
      keyed(4, ['b=3']),
      abort(5, 7),
    ];
    const short = await runPass(history, { upTo: 5 });
    expect(short.pass.cleanedOffset).toBe(3);
    expect(await recordsOf(short.batches.slice(0, -1))).toEqual(['0:a=1', '2:b=2', '3:a=aborted', '4:b=3']);
    const reaching = await runPass(history, { upTo: 5, markersUpTo: 6 });
    expect(reaching.pass.cleanedOffset).toBe(5);
    expect(await recordsOf(reaching.batches.slice(0, -1))).toEqual(['0:a=1', '4:b=3']);
  });

  it('are looked up no further than needed', async () => {
    const history = [
      keyed(0, ['a=1'], inTransaction(7)),
      keyed(1, ['b=1']),
      commit(2, 7),
      keyed(3, ['c=1']),
      keyed(4, ['d=1']),
    ];
    const asked: number[] = [];
    const source = async function* (from: number, to: number): AsyncGenerator<Buffer> {
      for await (const batch of sourceOf(history)(from, to)) {
        asked.push(baseOffsetOf(batch, 0));
        yield batch;
      }
    };
    await CompactionPass.plan(source, { ...OPTIONS, upTo: 2, markersUpTo: 5 });
    // The keys of 0 and 1; for the marker of the first from 0 on, until nothing is undecided at 3.
    expect(asked).toEqual([0, 0, 1, 2, 3, 1]);
  });

  it('are dropped unread, whatever their codec', async () => {
    const batch = altered(keyed(0, ['a=1'], inTransaction(7)), (copy) => copy.writeInt16BE(0x17, 21));
    const { results, pass } = await runPass([batch, abort(1, 7), keyed(2, ['x=1'], byProducer(7))]);
    expect(results[0]).toBeUndefined();
    expect(pass.counters.unreadableBatches).toBe(0);
  });
});

describe('control batches', () => {
  it('stay as they are while something of their transaction does', async () => {
    const history = [keyed(0, ['a=1', 'b=1'], inTransaction(7)), commit(2, 7), keyed(3, ['a=2'], byProducer(7, 2))];
    const { results } = await runPass(history);
    expect(await recordsOf([results[0]!])).toEqual(['1:b=1']);
    expect(results[1]).toBe(history[1]);
  });

  it('stay as they are while the empty header of their transaction does', async () => {
    const history = [keyed(0, ['a=1'], inTransaction(7)), abort(1, 7)];
    const { results } = await runPass(history);
    expect(results[0]).toEqual(emptied(history[0]!));
    expect(results[1]).toBe(history[1]);
    const again = await runPass([results[0]!, results[1]!], { firstDirty: 2 });
    expect(again.results).toEqual(results);
  });

  it('get a horizon when nothing of their transaction is left, and go once it has come', async () => {
    const history = [keyed(0, ['a=1'], inTransaction(7)), abort(1, 7), keyed(2, ['a=2'], byProducer(7))];
    const first = await runPass(history, { nowMs: T0 + 10, deleteRetentionMs: 1000 });
    const marked = first.results[1]!;
    expect(first.results[0]).toBeUndefined();
    expect(attributesOf(marked, 0)).toBe(0x70);
    expect(baseTimestampOf(marked, 0)).toBe(T0 + 1010);
    expect(await readRecords(marked)).toEqual(await readRecords(history[1]!));
    const early = await runPass(first.batches, { nowMs: T0 + 1009 });
    expect(early.results[0]).toBe(marked);
    const late = await runPass(first.batches, { nowMs: T0 + 1010 });
    expect(late.results[0]).toBeUndefined();
  });

  it('stay while they are the last of an active producer', async () => {
    const marker = commit(0, 7);
    expect((await runPass([marker, keyed(1, ['a=1'])])).results[0]).toBe(marker);
    const expired = await runPass([marker, keyed(1, ['a=1'])], { nowMs: T0 + DAY + HOUR });
    expect(hasDeleteHorizon(attributesOf(expired.results[0]!, 0))).toBe(true);
    const emptyMarker = emptied(marker);
    expect((await runPass([emptyMarker])).results[0]).toBe(emptyMarker);
    expect((await runPass([emptyMarker, commit(1, 7)])).results[0]).toBeUndefined();
  });

  it('that are no transaction markers always stay', async () => {
    const history = [control(0, 2, -1), control(1, 99, -1), keyed(2, ['a=1'])];
    const { results } = await runPass(history, { nowMs: T0 + 10 * DAY });
    expect(results[0]).toBe(history[0]);
    expect(results[1]).toBe(history[1]);
  });
});

describe('batches that cannot be read', () => {
  it.each([
    ['of a codec that does not exist', altered(keyed(1, ['a=2', 'b=2']), (copy) => copy.writeInt16BE(7, 21))],
    ['that are not compressed as they say', altered(keyed(1, ['a=2', 'b=2']), (copy) => copy.writeInt16BE(1, 21))],
    [
      'that break off in the second record',
      altered(keyed(1, ['a=2', 'b=2']), (copy) => copy.writeInt8(4, copy.length - 5)),
    ],
  ])('stay as they are, and nothing goes in their favour: those %s', async (_what, broken) => {
    const before = [keyed(0, ['a=1']), broken, keyed(3, ['b=3'])];
    await expect((async () => recordsOf([broken]))()).rejects.toThrow();
    const { results, pass } = await runPass(before);
    expect(results).toEqual(before);
    expect(pass.counters.unreadableBatches).toBe(1);
  });

  it('are those that claim more records than a reader takes', async () => {
    const huge = altered(await compressed(1, ['a=2'], { codec: 'gzip' }), (copy) => {
      copy.writeInt32BE(2_000_000, 23);
      copy.writeInt32BE(2_000_001, 57);
    });
    const { results, pass } = await runPass([keyed(0, ['a=1']), huge]);
    expect(results[1]).toBe(huge);
    expect(pass.counters.recordsAfter).toBe(2_000_002);
  });

  it('keep the tombstones behind them, which may delete what is in them', async () => {
    const readable = keyed(0, ['a=1']);
    const broken = altered(readable, (copy) => copy.writeInt16BE(7, 21));
    const marked = (await runPass([readable, keyed(1, ['a', 'b=1'])], { deleteRetentionMs: 0 })).results[1]!;
    const options = { nowMs: T0 + DAY };
    expect(await recordsOf((await runPass([keyed(0, ['c=1']), marked], options)).batches)).toEqual(['0:c=1', '2:b=1']);
    expect((await runPass([broken, marked], options)).results).toEqual([broken, marked]);
  });

  it('do not hide a failure of the source', async () => {
    const failing = async function* (): AsyncGenerator<Buffer> {
      yield keyed(0, ['a=1']);
      throw new Error('the disk is gone');
    };
    const { CompactionPass } = await import('../../../src/storage/compaction/compaction-pass.js');
    await expect(CompactionPass.plan(failing, OPTIONS)).rejects.toThrow('the disk is gone');
  });
});

it('cleaned batches are still opened like any other', async () => {
  const { results } = await runPass([keyed(0, ['a=1', 'b=1', 'c=1']), keyed(3, ['b=2'])]);
  const cursor = await openRecords(results[0]!);
  expect(cursor.recordCount).toBe(2);
});
