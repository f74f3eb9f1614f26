/** What compaction leaves of producers and transactions in files, for whoever reads the log from its start. */
import { expect, test } from 'vitest';
import { attributesOf, isControl, producerIdOf, recordCountOf } from '../../src/batch/layout.js';
import { splitBatches } from '../../src/batch/validate.js';
import { toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { byProducer, commit, DAY, inTransaction, keyed } from './compaction/support.js';
import { optionsFor } from './keyed.js';
import { BASE_TIME, CONFIG, END, EPOCH, LocalRig, partition } from './support.js';

const PRODUCER = 7;

async function openLog(segmentBytes: number): Promise<PartitionLog> {
  const rig = new LocalRig({ tailCacheBytes: 0 });
  return (await rig.open()).open(partition(), EPOCH, { ...CONFIG, segmentBytes });
}

async function append(log: PartitionLog, ...batches: readonly Buffer[]): Promise<void> {
  for (const batch of batches) await log.append([batch], log.endOffset);
  await log.flush(log.endOffset);
}

/** `data` or `marker` for each batch of the producer, with its offset and number of records. */
async function tracesOf(log: PartitionLog): Promise<string[]> {
  const chunks: Buffer[] = [];
  for (let offset = log.startOffset; offset < log.endOffset; ) {
    const slice = await log.read(offset, END, 1e6);
    chunks.push(...slice.chunks);
    offset = slice.nextOffset;
  }
  return chunks
    .flatMap(splitBatches)
    .filter((batch) => producerIdOf(batch, 0) === PRODUCER)
    .map((batch) => {
      const kind = isControl(attributesOf(batch, 0)) ? 'marker' : 'data';
      return `${kind} ${batch.readBigInt64BE(0)}: ${recordCountOf(batch, 0)}`;
    });
}

test('a header that stays to hold the end of a segment does not lose the marker of its transaction', async () => {
  const log = await openLog(420);
  const filler = 'x'.repeat(250);
  await append(log, keyed(0, [`=${filler}`], inTransaction(PRODUCER)));
  await log.roll();
  await append(log, commit(1, PRODUCER), keyed(2, [`a=${filler}`]));
  await log.roll();
  await append(log, keyed(3, ['b=1']));
  await log.roll();
  const later = { upTo: log.endOffset, deleteRetentionMs: 0, producerExpirationMs: 1000 };
  await log.compact(optionsFor(log, { ...later, nowMs: BASE_TIME + DAY }));
  expect(await tracesOf(log)).toEqual(['data 0: 0', 'marker 1: 1']);
  await append(log, keyed(4, ['c=1']));
  await log.roll();
  // The marker has a horizon by now, if it was to have one, and the header is still where the segment ends.
  await log.compact(optionsFor(log, { ...later, upTo: log.endOffset, nowMs: BASE_TIME + 2 * DAY }));
  expect(await tracesOf(log)).toEqual(['data 0: 0', 'marker 1: 1']);
});

test('the last batch below the limit stays as a header, wherever the producer has written since', async () => {
  const log = await openLog(CONFIG.segmentBytes);
  await append(log, keyed(0, ['=x'], byProducer(PRODUCER, 0)), keyed(1, ['=y'], byProducer(PRODUCER, 1)));
  await log.roll();
  await append(log, keyed(2, ['a=1']));
  await log.roll();
  await append(log, keyed(3, ['=z'], byProducer(PRODUCER, 2)));
  await log.compact(optionsFor(log, { upTo: toOffset(2) }));
  expect(await tracesOf(log)).toEqual(['data 1: 0', 'data 3: 1']);
  // The range now begins above its older batches, and the producer is not seen in it: they stay.
  await log.compact(optionsFor(log, { upTo: toOffset(3) }));
  expect(await tracesOf(log)).toEqual(['data 1: 0', 'data 3: 1']);
  await log.roll();
  await append(log, keyed(4, ['b=1']));
  await log.compact(optionsFor(log, { upTo: toOffset(4) }));
  expect(await tracesOf(log)).toEqual(['data 3: 0']);
});

test('a limit inside a segment leaves that segment alone, its bytes and its producers', async () => {
  const log = await openLog(CONFIG.segmentBytes);
  await append(log, keyed(0, ['a=1'], byProducer(PRODUCER, 0)), keyed(1, ['a=2'], byProducer(PRODUCER, 1)));
  await log.roll();
  await append(log, keyed(2, ['a=3']), keyed(3, ['a=4'], inTransaction(PRODUCER, 2)));
  await log.roll();
  const [, second] = log.segments();
  const before = (await log.read(toOffset(2), END, 1e6)).chunks;
  await log.compact(optionsFor(log, { upTo: toOffset(3) }));
  expect([log.cleanedOffset, log.segments()[1]]).toEqual([2, second]);
  expect((await log.read(toOffset(2), END, 1e6)).chunks).toEqual(before);
  expect(await tracesOf(log)).toEqual(['data 1: 1', 'data 3: 1']);
});
