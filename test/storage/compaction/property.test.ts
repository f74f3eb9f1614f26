/** Random histories: what a consumer ends with is the same with and without compaction. A failing run prints its seed. */

import { expect, test } from 'vitest';
import {
  attributesOf,
  CODECS,
  type Codec,
  isControl,
  isTransactional,
  nextOffsetOf,
  producerIdOf,
} from '../../../src/batch/layout.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { toEpoch, toOffset } from '../../../src/core/types.js';
import { BYTES_PER_SLOT } from '../../../src/storage/compaction/key-map.js';
import { markerTypeOf } from '../../../src/storage/compaction/transactions.js';
import type { LogConfig, PartitionLog, StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { inForm, Programme } from '../../support/programme.js';
import { fc } from '../../support/properties.js';
import { END, LocalRig, partition } from '../support.js';
import { abort, commit, compressed, readRecords, T0 } from './support.js';

const CONFIG: LogConfig = { segmentBytes: 900, segmentMs: 1e12, indexIntervalBytes: 150, fileDeleteDelayMs: 60_000 };
const DELETE_RETENTION_MS = 1000;
const PRODUCER_EXPIRATION_MS = 5000;
const RUN_LIMIT_MS = 20_000;

/** What a property runs on. */
interface Rig {
  open(): Promise<StorageEngine>;
  /** Another engine on the same data, after a stop or a crash; undefined when the engine keeps nothing. */
  readonly reopen: ((engine: StorageEngine, crash: boolean) => Promise<StorageEngine>) | undefined;
}

interface BatchShape {
  /** Key number, -1 for none; no value is a tombstone. */
  readonly records: readonly { readonly key: number; readonly tombstone: boolean }[];
  readonly codec: Codec;
  /** 0: none; 1 and 2: idempotent; 3 and 4: in a transaction. */
  readonly producer: number;
}

type Step =
  | { readonly do: 'append'; readonly batches: readonly BatchShape[] }
  | { readonly do: 'end'; readonly producer: number; readonly abort: boolean }
  | { readonly do: 'roll' }
  | { readonly do: 'trim'; readonly at: number }
  | { readonly do: 'restart'; readonly crash: boolean }
  | {
      readonly do: 'compact';
      /** First ends all transactions, if so whether by an abort, and the segment. */
      readonly settle: 'commit' | 'abort' | undefined;
      readonly mapBytes: number;
      readonly upTo: number;
      readonly laterMs: number;
      /** Appended while the compaction is under way. */
      readonly meanwhile: BatchShape | undefined;
    };

const batchShape: fc.Arbitrary<BatchShape> = fc.record({
  records: fc.array(fc.record({ key: fc.integer({ min: -1, max: 7 }), tombstone: fc.nat(3).map((n) => n === 0) }), {
    minLength: 1,
    maxLength: 5,
  }),
  codec: fc.constantFrom<Codec>('none', 'none', 'none', ...CODECS),
  producer: fc.constantFrom(0, 0, 1, 2, 3, 4),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      batches: fc.array(batchShape, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('end' as const), producer: fc.constantFrom(3, 4), abort: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('roll' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('trim' as const), at: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const), crash: fc.boolean() }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('compact' as const),
      settle: fc.constantFrom<'commit' | 'abort' | undefined>('commit', 'abort', undefined),
      mapBytes: fc.constantFrom(0, 6 * BYTES_PER_SLOT, 1 << 20),
      upTo: fc.constantFrom(1, 1, 0.5),
      laterMs: fc.constantFrom(0, DELETE_RETENTION_MS, PRODUCER_EXPIRATION_MS + 1),
      meanwhile: fc.option(batchShape, { nil: undefined }),
    }),
  },
);

interface ModelRecord {
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly transaction: { aborted: boolean } | undefined;
}

/** A log and everything that was ever written to it. */
class Pair {
  readonly #rig: Rig;
  #engine!: StorageEngine;
  #log!: PartitionLog;
  #epoch = 0;
  #nowMs = T0;
  #start = 0;
  #end = 0;
  readonly #records: ModelRecord[] = [];
  readonly #open = new Map<number, { readonly from: number; readonly outcome: { aborted: boolean } }>();
  readonly #sequences = new Map<number, number>();

  constructor(rig: Rig) {
    this.#rig = rig;
  }

  async start(): Promise<void> {
    this.#engine = await this.#rig.open();
    await this.#openLog();
  }

  async take(one: Step): Promise<void> {
    switch (one.do) {
      case 'append':
        for (const shape of one.batches) await this.#append(shape);
        return;
      case 'end':
        return this.#endTransaction(one.producer, one.abort);
      case 'roll':
        return this.#log.roll();
      case 'trim': {
        const before = this.#start + (one.at % (this.#end - this.#start + 1));
        await this.#log.trim(toOffset(before));
        this.#start = before;
        return;
      }
      case 'restart':
        if (this.#rig.reopen === undefined) return;
        this.#engine = await this.#rig.reopen(this.#engine, one.crash);
        return this.#openLog();
      case 'compact':
        return this.#compact(one);
    }
  }

  /** Compares what two consumers from the start end with. */
  async check(): Promise<void> {
    const expected = new Map<string, string>();
    for (const { offset, key, value, transaction } of this.#records) {
      if (offset >= this.#start && key !== null && transaction?.aborted !== true) apply(expected, key, value);
    }
    const found = new Map<string, string>();
    const clean = new Set<string>();
    for (const { offset, timestampMs, key, value } of await this.#consume()) {
      expect(this.#records.find((record) => record.offset === offset)).toMatchObject({ timestampMs, key, value });
      if (key === null) continue;
      apply(found, key, value);
      if (offset >= this.#log.cleanedOffset) continue;
      expect(clean, `two records of a key below ${this.#log.cleanedOffset}`).not.toContain(key);
      clean.add(key);
    }
    expect(sorted(found)).toEqual(sorted(expected));
  }

  async finish(): Promise<void> {
    for (const producer of [3, 4]) await this.#endTransaction(producer, false);
    await this.check();
    await this.#engine.close();
  }

  async #openLog(): Promise<void> {
    this.#log = await this.#engine.open(partition(), toEpoch(++this.#epoch), CONFIG);
    expect([this.#log.startOffset, this.#log.endOffset]).toEqual([this.#start, this.#end]);
  }

  async #append({ records, codec, producer }: BatchShape): Promise<void> {
    const at = this.#end;
    this.#nowMs += 10;
    const sequence = this.#sequences.get(producer) ?? 0;
    const transactional = producer >= 3;
    if (transactional && !this.#open.has(producer)) this.#open.set(producer, { from: at, outcome: { aborted: false } });
    const transaction = transactional ? this.#open.get(producer)?.outcome : undefined;
    const lines = records.map(({ key, tombstone }, i) => {
      const name = key < 0 ? '' : `k${key}`;
      // Some keys are longer than what a map of keys holds as it is.
      const text = key > 4 ? name.padEnd(20, '.') : name;
      const value = tombstone && key >= 0 ? null : `v${at + i}`;
      const model = { offset: at + i, timestampMs: this.#nowMs + i, key: key < 0 ? null : text, value, transaction };
      this.#records.push(model);
      return value === null ? text : `${text}=${value}`;
    });
    const identity = producer === 0 ? {} : { producerId: producer, producerEpoch: 0, baseSequence: sequence };
    const batch = await compressed(at, lines, { timestampMs: this.#nowMs, codec, transactional, ...identity });
    this.#sequences.set(producer, sequence + records.length);
    this.#end += records.length;
    await this.#log.append([batch], toOffset(at));
  }

  async #endTransaction(producer: number, aborted: boolean): Promise<void> {
    const transaction = this.#open.get(producer);
    if (transaction === undefined) return;
    transaction.outcome.aborted = aborted;
    this.#open.delete(producer);
    const marker = aborted ? abort(this.#end, producer) : commit(this.#end, producer);
    await this.#log.append([marker], toOffset(this.#end));
    this.#end++;
  }

  async #compact({ settle, mapBytes, upTo, laterMs, meanwhile }: Step & { readonly do: 'compact' }): Promise<void> {
    if (settle !== undefined) {
      for (const producer of [3, 4]) await this.#endTransaction(producer, settle === 'abort');
      await this.#log.roll();
    }
    this.#nowMs += laterMs;
    const lastStable = Math.min(this.#end, ...[...this.#open.values()].map(({ from }) => from));
    const log = this.#log;
    const options = {
      upTo: toOffset(Math.floor(lastStable * upTo)),
      nowMs: this.#nowMs,
      deleteRetentionMs: DELETE_RETENTION_MS,
      producerExpirationMs: PRODUCER_EXPIRATION_MS,
      maxMapBytes: mapBytes,
    };
    const compaction = log.compact(options);
    if (meanwhile !== undefined) await this.#append(meanwhile);
    const result = await compaction;
    expect(result.bytesAfter).toBeGreaterThanOrEqual(0);
    expect(log.cleanedOffset).toBeGreaterThanOrEqual(log.startOffset);
    // What was appended meanwhile may have closed a segment, which a later pass then takes along.
    const last = log.segments().at(-1)!;
    expect(log.cleanedOffset).toBeLessThanOrEqual(Math.max(last.baseOffset, log.startOffset));
    expect(log.endOffset).toBe(this.#end);
    await this.check();
  }

  /** Every record that a consumer is shown which waits for transactions to be decided. */
  async #consume(): Promise<Omit<ModelRecord, 'transaction'>[]> {
    const log = this.#log;
    const batches: Buffer[] = [];
    let offset = log.startOffset;
    while (offset < log.endOffset) {
      const slice = await log.read(offset, END, 300);
      expect(slice.nextOffset, `reading goes on from ${offset}`).toBeGreaterThan(offset);
      for (const batch of slice.chunks.flatMap(splitBatches)) {
        expect(nextOffsetOf(batch, 0)).toBeGreaterThan(offset);
        offset = toOffset(nextOffsetOf(batch, 0));
        batches.push(batch);
      }
      expect(slice.nextOffset).toBe(offset);
    }
    this.#checkTransactions(batches);
    const shown: Omit<ModelRecord, 'transaction'>[] = [];
    for (const [i, batch] of batches.entries()) {
      if (isControl(attributesOf(batch, 0)) || isAborted(batches, i)) continue;
      const records = await readRecords(batch);
      shown.push(...records.filter((record) => record.offset >= log.startOffset));
    }
    return shown;
  }

  /** Whoever reads the log from the start knows the transactions that are open, and no others. */
  #checkTransactions(batches: readonly Buffer[]): void {
    const open = new Set<number>();
    for (const batch of batches) {
      if (!isTransactional(attributesOf(batch, 0))) continue;
      if (isControl(attributesOf(batch, 0))) open.delete(producerIdOf(batch, 0));
      else open.add(producerIdOf(batch, 0));
    }
    expect(
      [...open].filter((producer) => !this.#open.has(producer)),
      'ended, but without a marker',
    ).toEqual([]);
  }
}

function isAborted(batches: readonly Buffer[], index: number): boolean {
  const batch = batches[index]!;
  if (!isTransactional(attributesOf(batch, 0))) return false;
  const marker = batches
    .slice(index + 1)
    .find((one) => markerTypeOf(one) !== undefined && producerIdOf(one, 0) === producerIdOf(batch, 0));
  return marker !== undefined && markerTypeOf(marker) === 'ABORT';
}

function apply(map: Map<string, string>, key: string, value: string | null): void {
  if (value === null) map.delete(key);
  else map.set(key, value);
}

function sorted(map: ReadonlyMap<string, string>): readonly (readonly [string, string])[] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

async function holds(programme: Programme, newRig: () => Rig, numRuns: number): Promise<void> {
  const run = async (steps: readonly Step[]): Promise<void> => {
    programme.tried('histories');
    const pair = new Pair(newRig());
    await pair.start();
    for (const one of steps) await pair.take(one);
    await pair.finish();
  };
  const steps = fc.array(step, { minLength: 1, maxLength: inForm({ short: 40, long: 100 }), size: 'max' });
  await fc.assert(fc.asyncProperty(steps, run), {
    seed: programme.seed,
    numRuns,
    timeout: RUN_LIMIT_MS,
    interruptAfterTimeLimit: inForm({ short: 120_000, long: 1_200_000 }),
    markInterruptAsFailure: true,
  });
}

function memoryRig(): Rig {
  return { open: async () => openMemoryEngine(), reopen: undefined };
}

function localRig(): Rig {
  let rig = new LocalRig();
  rig.fs.skipsDisk = true;
  return {
    open: () => rig.open(),
    async reopen(engine, crash): Promise<StorageEngine> {
      const next = crash ? rig.crash() : rig;
      await engine.close();
      rig = next;
      return rig.open();
    },
  };
}

const LIMITS = { timeout: inForm({ short: 150_000, long: 1_500_000 }) };

test('memory engine: a consumer ends with the same values, compacted or not (invariant 4)', LIMITS, async (context) => {
  await holds(new Programme(context), memoryRig, inForm({ short: 200, long: 5000 }));
});

test(
  'local engine: a consumer ends with the same values, compacted or not, stopped and crashed (invariants 1, 4)',
  LIMITS,
  async (context) => {
    await holds(new Programme(context), localRig, inForm({ short: 60, long: 1000 }));
  },
);
