/** Looking up times: what is found, and how little is read for it. */

import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { fc } from '../support/properties.js';
import { BASE_TIME, batchAt, CONFIG, EPOCH, LocalRig, partition } from './support.js';

const BATCHES = 20_000;

test('a look-up reads the indexes of one segment and one index interval of its log, wherever the time lies', async () => {
  const config: LogConfig = { ...CONFIG, segmentBytes: 512 * 1024 };
  const rig = new LocalRig({ tailCacheBytes: 0, indexCacheBytes: 1000 });
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, config);
  // Rising, with a jitter of several batches either way; half an hour of silence in the middle.
  const timeOf = (i: number): number => BASE_TIME + i * 100 + ((i * 7919) % 1000) + (i > BATCHES / 2 ? 1_800_000 : 0);
  const newest: number[] = [];
  for (let i = 0; i < BATCHES; i++) {
    await log.append([batchAt(i, { bytes: 50, timestampMs: timeOf(i) })], toOffset(i));
    newest.push(Math.max(newest.at(-1) ?? 0, timeOf(i)));
  }
  await engine.close();

  const again = new LocalRig({ tailCacheBytes: 0, indexCacheBytes: 1000 }, rig.dataDir);
  const reopened = await (await again.open()).open(partition(), toEpoch(2), config);
  const indexBytes = 2 * ((512 * 1024) / 4096) * 20;
  for (let i = 0; i < BATCHES; i += 997) {
    for (const time of [timeOf(i), newest[i]! + 1, BASE_TIME + i * 100]) {
      const before = again.fs.bytesRead;
      const found = await reopened.batchForTime(time);
      expect(found).toBe(
        newest.findIndex((reached) => reached >= time) === -1
          ? undefined
          : newest.findIndex((reached) => reached >= time),
      );
      expect(again.fs.bytesRead - before).toBeLessThan(indexBytes + 3 * 4096);
    }
  }
  expect(again.messages('warn')).toEqual([]);
});

test('the newest record is found from what is known of the segments, without reading them', async () => {
  const config: LogConfig = { ...CONFIG, segmentBytes: 10_000, indexIntervalBytes: 500 };
  const rig = new LocalRig({ tailCacheBytes: 0 });
  const log = await (await rig.open()).open(partition(), EPOCH, config);
  for (let i = 0; i < 1000; i++) {
    await log.append([batchAt(i, { bytes: 50, timestampMs: BASE_TIME + (i === 400 ? 5000 : i) })], toOffset(i));
  }
  await log.flush(log.endOffset);
  const before = rig.fs.bytesRead;
  expect(await log.batchForMaxTimestamp(log.endOffset)).toBe(400);
  expect(rig.fs.bytesRead - before).toBeLessThan(2000);
});

test('the first batch that reaches a time, and the newest one, are those of a model', async () => {
  const step = fc.record({ time: fc.nat(50), bytes: fc.constantFrom(10, 60, 200), roll: fc.boolean() });
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 1, maxLength: 40 }),
    fc.nat(40),
    fc.nat(40),
    fc.boolean(),
    async (steps, trimTo, upTo, reopen) => {
      const config: LogConfig = { ...CONFIG, segmentBytes: 600, indexIntervalBytes: 100 };
      const rig = new LocalRig({ tailCacheBytes: 0 });
      rig.fs.skipsDisk = true;
      const engine = await rig.open();
      let log = await engine.open(partition(), EPOCH, config);
      for (const [i, { time, bytes, roll }] of steps.entries()) {
        await log.append([batchAt(i, { bytes, timestampMs: BASE_TIME + time })], toOffset(i));
        if (roll && i % 5 === 0) await log.roll();
      }
      const start = Math.min(trimTo, steps.length);
      await log.trim(toOffset(start));
      if (reopen) {
        await engine.close();
        log = await (await rig.open()).open(partition(), toEpoch(2), config);
      }
      const times = steps.map(({ time }) => time);
      for (let time = 0; time <= 51; time++) {
        const expected = times.findIndex((own, i) => i >= start && own >= time);
        expect(await log.batchForTime(BASE_TIME + time)).toBe(expected < 0 ? undefined : expected);
      }
      const end = Math.min(upTo, steps.length);
      const visible = times.slice(start, end);
      const newest = visible.length === 0 ? undefined : start + visible.indexOf(Math.max(...visible));
      expect(await log.batchForMaxTimestamp(toOffset(end))).toBe(newest);
    },
  );
  await fc.assert(property, { numRuns: 100 });
});
