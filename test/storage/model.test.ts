/** Random operations against a model of a log; every run prints its seed when it fails. */

import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { LogConfig, PartitionLog, StorageEngine } from '../../src/storage/engine.js';
import { inForm, Programme } from '../support/programme.js';
import { fc } from '../support/properties.js';
import { BASE_TIME, batchAt, END, LocalRig, partition } from './support.js';

const CONFIG: LogConfig = { segmentBytes: 700, segmentMs: 60, indexIntervalBytes: 150, fileDeleteDelayMs: 60_000 };

/** One run takes some 50 ms. */
const RUN_LIMIT_MS = 20_000;

type Step =
  | {
      readonly do: 'append';
      readonly shapes: readonly { readonly count: number; readonly bytes: number; readonly time: number }[];
    }
  | { readonly do: 'flush' | 'close' | 'crash' | 'restart' }
  | { readonly do: 'read'; readonly at: number; readonly maxBytes: number; readonly width: number }
  | { readonly do: 'trim'; readonly at: number }
  | { readonly do: 'time'; readonly time: number };

const shape = fc.record({
  count: fc.integer({ min: 1, max: 4 }),
  bytes: fc.integer({ min: 0, max: 120 }),
  time: fc.nat(200),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      shapes: fc.array(shape, { minLength: 1, maxLength: 5 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('read' as const),
      at: fc.nat(1000),
      maxBytes: fc.integer({ min: 1, max: 2000 }),
      width: fc.nat(30),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('time' as const), time: fc.nat(220) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('flush' as const, 'close' as const, 'crash' as const, 'restart' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), at: fc.nat(1000) }) },
);

interface ModelBatch {
  readonly base: number;
  readonly next: number;
  readonly time: number;
  readonly bytes: Buffer;
}

/** A log and its model, carried through the steps. */
class Pair {
  #rig: LocalRig;
  #engine!: StorageEngine;
  #log!: PartitionLog;
  #epoch = 0;
  #batches: ModelBatch[] = [];
  #start = 0;
  #end = 0;

  constructor(rig: LocalRig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    this.#engine = await this.#rig.open();
    await this.#open();
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'append':
        return this.#append(step.shapes);
      case 'read':
        return this.#read(step.at, step.maxBytes, step.width);
      case 'time':
        return this.#time(BASE_TIME + step.time);
      case 'trim':
        return this.#trim(step.at);
      case 'flush':
        await this.#log.flush(this.#log.endOffset);
        expect(this.#log.durableOffset).toBe(this.#end);
        return;
      case 'close':
        await this.#log.close();
        return this.#open();
      case 'crash': {
        const crashed = this.#rig.crash();
        await this.#engine.close();
        this.#rig = crashed;
        return this.start();
      }
      case 'restart':
        await this.#engine.close();
        return this.start();
    }
  }

  async finish(): Promise<void> {
    await this.#engine.close();
  }

  async #open(): Promise<void> {
    this.#log = await this.#engine.open(partition(), toEpoch(++this.#epoch), CONFIG);
    expect([this.#log.startOffset, this.#log.endOffset]).toEqual([this.#start, this.#end]);
  }

  async #append(shapes: readonly { count: number; bytes: number; time: number }[]): Promise<void> {
    const at = this.#end;
    const batches = shapes.map(({ count, bytes, time }) => {
      const batch = batchAt(this.#end, { count, bytes, timestampMs: BASE_TIME + time });
      const model = {
        base: this.#end,
        next: this.#end + count,
        time: BASE_TIME + time + count - 1,
        bytes: Buffer.from(batch),
      };
      this.#batches.push(model);
      this.#end += count;
      return batch;
    });
    expect(await this.#log.append(batches, toOffset(at))).toBe(this.#end);
  }

  async #read(position: number, maxBytes: number, width: number): Promise<void> {
    const from = this.#start + (position % (this.#end - this.#start + 1));
    const to = Math.min(from + width, this.#end);
    const served: Buffer[] = [];
    let offset = from;
    for (;;) {
      const slice = await this.#log.read(toOffset(offset), width === 0 ? END : toOffset(to), maxBytes);
      if (slice.byteLength === 0) break;
      if (slice.chunks.length > 1) expect(slice.byteLength).toBeLessThanOrEqual(maxBytes);
      expect(slice.nextOffset).toBeGreaterThan(offset);
      served.push(...slice.chunks);
      offset = slice.nextOffset;
    }
    const limit = width === 0 ? this.#end : to;
    const expected = this.#batches.filter((batch) => batch.next > from && batch.next <= limit && batch.base < limit);
    expect(Buffer.concat(served)).toEqual(Buffer.concat(expected.map((batch) => batch.bytes)));
  }

  async #time(time: number): Promise<void> {
    const found = this.#batches.find((batch) => batch.next > this.#start && batch.time >= time);
    const expected = found && Math.max(found.base, this.#start);
    expect(await this.#log.batchForTime(time)).toBe(expected);
  }

  async #trim(position: number): Promise<void> {
    this.#start += position % (this.#end - this.#start + 1);
    await this.#log.trim(toOffset(this.#start));
    expect(this.#log.startOffset).toBe(this.#start);
  }
}

test('a log does what its model does (invariants 1, 4, 16)', {
  timeout: inForm({ short: 150_000, long: 1_500_000 }),
}, async (context) => {
  const programme = new Programme(context);
  const run = async (steps: readonly Step[], tailCacheBytes: number, maxOpenFiles: number): Promise<void> => {
    programme.tried('histories');
    const rig = new LocalRig({ tailCacheBytes, maxOpenFiles });
    rig.fs.skipsDisk = true;
    const pair = new Pair(rig);
    await pair.start();
    for (const one of steps) await pair.take(one);
    await pair.finish();
  };
  const steps = fc.array(step, { minLength: 1, maxLength: inForm({ short: 60, long: 100 }), size: 'max' });
  await fc.assert(fc.asyncProperty(steps, fc.constantFrom(0, 1000, 1 << 20), fc.constantFrom(6, 8, 100), run), {
    seed: programme.seed,
    numRuns: inForm({ short: 200, long: 2000 }),
    // A run that hangs is reported with its steps, and so is the smallest one found when shrinking takes too long.
    timeout: RUN_LIMIT_MS,
    interruptAfterTimeLimit: inForm({ short: 120_000, long: 1_200_000 }),
    markInterruptAsFailure: true,
  });
});
