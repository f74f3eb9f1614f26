import { describe, expect, type TestContext, test } from 'vitest';
import { baseOffsetOf, nextOffsetOf, producerIdOf } from '../../../src/batch/layout.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { LogError, toLogError } from '../../../src/core/errors.js';
import { toEpoch, toOffset } from '../../../src/core/types.js';
import type { Partition } from '../../../src/partition/partition.js';
import { ProducerBudget } from '../../../src/partition/producers/producer-budget.js';
import { ProducerStates } from '../../../src/partition/producers/producer-states.js';
import { MAX_SEQUENCE } from '../../../src/partition/producers/sequence.js';
import type { AbortedTransaction, ProducerDescription } from '../../../src/partition/producers/types.js';
import type { SideFileKind, StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { LocalRig } from '../../storage/support.js';
import { inForm, Programme } from '../../support/programme.js';
import { batchOf, CONFIG, newSharedProducers, TOPIC_ID } from '../support.js';
import { reopen } from './partition-support.js';
import { DAY_MS, producerBatch } from './support.js';

/** Small enough for segments, snapshots and files of aborted transactions to come and go all the time. */
const SMALL = { segmentBytes: 4096, maxMessageBytes: 4096, flushMs: 1_000_000 };
const LOG_CONFIG = { ...CONFIG, ...SMALL };
const THRESHOLDS = { abortedInMemory: 4, snapshotEveryBytes: 1500 };

/** Where a partition lives on: what a clean end leaves, and what a crash does. */
interface Home {
  readonly engine: StorageEngine;
  readonly epoch: number;
  readonly close: () => Promise<Home>;
  readonly crash: () => Promise<Home>;
}

function memoryHome(engine: StorageEngine = openMemoryEngine(), epoch = 1): Home {
  const next = async (): Promise<Home> => memoryHome(engine, epoch + 1);
  return { engine, epoch, close: next, crash: next };
}

async function localHome(rig: LocalRig = new LocalRig(), epoch = 1): Promise<Home> {
  rig.fs.skipsDisk = true;
  const engine = await rig.open();
  const close = async (): Promise<Home> => {
    await engine.close();
    return await localHome(rig, epoch + 1);
  };
  const crash = async (): Promise<Home> => {
    const after = rig.crash();
    await engine.close();
    return await localHome(after, epoch + 1);
  };
  return { engine, epoch, close, crash };
}

/** A partition under random use, beside states that have seen every batch of its log and were never restarted. */
class Life {
  readonly #programme: Programme;
  readonly #deletes: boolean;
  #home: Home;
  #opened: Partition | undefined;
  readonly #reference = newReference();
  readonly #history: Buffer[] = [];
  /** Next sequence by producer, as the producers themselves know it. */
  readonly #next = new Map<number, { epoch: number; sequence: number; open: boolean }>();

  /** @param deletes whether records are deleted; else side files are damaged, of which the log must know all */
  constructor(programme: Programme, home: Home, deletes: boolean) {
    this.#programme = programme;
    this.#home = home;
    this.#deletes = deletes;
  }

  async open(): Promise<void> {
    const { engine, epoch } = this.#home;
    const producers = newSharedProducers({}, THRESHOLDS);
    this.#opened = await reopen(engine, { config: SMALL, producers, epoch });
  }

  get #partition(): Partition {
    if (this.#opened === undefined) throw new Error('the partition is not open');
    return this.#opened;
  }

  async step(): Promise<void> {
    const dice = this.#programme.below(100);
    if (dice < 40) await this.#send();
    else if (dice < 50) await this.#sendAgain();
    else if (dice < 58) await this.#sendWrong();
    else if (dice < 78) await this.#end();
    else if (dice < 88) await this.#append(batchOf(['plain']));
    else if (dice < 92) await this.#partition.log.roll();
    else if (dice < 94 && this.#deletes) await this.#delete();
    else if (dice < 98) await this.#check();
    else await this.restart(this.#programme.below(2) === 0);
  }

  #producer(): number {
    return 1 + this.#programme.below(6);
  }

  /** Odd ids send transactions, even ones begin near the end of the sequences. */
  async #send(): Promise<void> {
    const id = this.#producer();
    const transactional = id % 2 === 1;
    const state = this.#next.get(id) ?? { epoch: 0, sequence: transactional ? 0 : MAX_SEQUENCE - 3, open: false };
    const count = 1 + this.#programme.below(4);
    const { epoch, sequence } = state;
    const sent = await this.#append(producerBatch({ id, epoch, sequence, count, transactional }));
    expect(sent).toBe('appended');
    this.#next.set(id, { epoch, sequence: (sequence + count) % 2 ** 31, open: transactional });
  }

  async #sendAgain(): Promise<void> {
    const known = [...this.#reference.entries()].filter(({ batches }) => batches.length > 0);
    const entry = known[this.#programme.below(known.length)];
    if (entry === undefined) return;
    const { firstSequence, baseOffset, lastOffset } = entry.batches[this.#programme.below(entry.batches.length)]!;
    const count = lastOffset + 1 - baseOffset;
    const transactional = entry.producerId % 2 === 1;
    const again = { id: entry.producerId, epoch: entry.epoch, sequence: firstSequence, count, transactional };
    expect(await this.#append(producerBatch(again))).toBe(`at ${baseOffset}`);
  }

  async #sendWrong(): Promise<void> {
    const id = this.#producer();
    const sequence = this.#programme.below(3) * 1000;
    const epoch = this.#programme.below(4);
    const batch = producerBatch({ id, epoch, sequence, count: 9, transactional: this.#programme.below(2) === 0 });
    const verdict = this.#reference.check(batch);
    if (!(verdict instanceof LogError)) return;
    expect(await this.#append(batch)).toBe(verdict.reason);
  }

  /** @returns where it is already, that it was appended, or why not */
  async #append(batch: Buffer): Promise<string> {
    const acks = this.#programme.below(3) === 0 ? 'durable' : 'written';
    try {
      const { baseOffset, duplicateCount } = await this.#partition.append([batch], { acks });
      if (duplicateCount > 0) return `at ${baseOffset}`;
      await this.#learn();
      return 'appended';
    } catch (error) {
      return toLogError(error).reason;
    }
  }

  async #end(): Promise<void> {
    const id = 1 + 2 * this.#programme.below(3);
    const state = this.#next.get(id);
    if (state?.open !== true) return;
    const producerEpoch = state.epoch + 1;
    const commit = this.#programme.below(3) === 0;
    await this.#partition.endTransaction({ producerId: id, producerEpoch, commit, coordinatorEpoch: 1 });
    this.#next.set(id, { epoch: producerEpoch, sequence: 0, open: false });
    await this.#learn();
  }

  async #delete(): Promise<void> {
    const { logStartOffset, highWatermark } = this.#partition;
    await this.#partition.deleteRecords(logStartOffset + this.#programme.below(highWatermark - logStartOffset + 1));
  }

  /** Shows the reference what has come to the end of the log. */
  async #learn(): Promise<void> {
    const { log } = this.#partition;
    const known = this.#history[this.#history.length - 1];
    let next = known === undefined ? 0 : nextOffsetOf(known, 0);
    while (next < log.endOffset) {
      const slice = await log.read(toOffset(next), log.endOffset, 1_000_000);
      for (const batch of slice.chunks.flatMap(splitBatches)) {
        this.#history.push(batch);
        this.#reference.note(batch, 0, 0);
        next = nextOffsetOf(batch, 0);
      }
    }
    this.#reference.settle(0);
  }

  async restart(clean: boolean): Promise<void> {
    if (clean) await this.#partition.close();
    this.#home = clean ? await this.#home.close() : await this.#home.crash();
    if (!this.#deletes) await this.#damage();
    await this.open();
    expect(this.#partition.logEndOffset).toBe(nextEndOf(this.#history));
    await this.#check();
  }

  /** Some of the side files are gone or broken (invariant 19). */
  async #damage(): Promise<void> {
    const { engine, epoch } = this.#home;
    const { sideFiles } = await engine.open({ topicId: TOPIC_ID, partition: 0 }, toEpoch(epoch), LOG_CONFIG);
    const files = (['snapshot', 'txnindex'] satisfies SideFileKind[]).flatMap((kind) =>
      sideFiles.offsets(kind).map((offset) => ({ kind, offset })),
    );
    for (const { kind, offset } of files) {
      const dice = this.#programme.below(8);
      if (dice === 0) await sideFiles.remove(kind, offset);
      if (dice === 1) await sideFiles.write(kind, offset, Buffer.from('broken'));
    }
  }

  async #check(): Promise<void> {
    const partition = this.#partition;
    expect(partition.producers().map(settled)).toEqual(this.#reference.describe().map(settled));
    const open = this.#reference.openTransactions().map(({ sinceMs: _, ...rest }) => rest);
    expect(partition.openTransactions()).toMatchObject(open);
    expect(partition.openTransactions().length).toBe(open.length);
    const { highWatermark, logStartOffset } = partition;
    const unstable = Math.min(highWatermark, ...this.#unstableBelow(highWatermark));
    expect(partition.lastStableOffset).toBe(Math.max(unstable, logStartOffset));
    if (logStartOffset < partition.lastStableOffset) await this.#checkAborted();
  }

  /** First offsets of what has no marker below the high watermark. */
  #unstableBelow(highWatermark: number): number[] {
    const states = newReference();
    for (const batch of this.#history) if (nextOffsetOf(batch, 0) <= highWatermark) states.note(batch, 0, 0);
    return states.openTransactions().map(({ firstOffset }) => firstOffset);
  }

  async #checkAborted(): Promise<void> {
    const { logStartOffset, lastStableOffset } = this.#partition;
    const from = logStartOffset + this.#programme.below(lastStableOffset - logStartOffset);
    const { nextOffset, aborted } = await this.#partition.read(toOffset(from), 300, 'read_committed');
    const expected = this.#reference.aborted.in(from, nextOffset);
    // What was told has something in there, and what has something in there was told.
    const told = new Set(aborted.map(nameOf));
    for (const name of told) expect(expected.map(nameOf)).toContain(name);
    for (const transaction of expected) {
      const isRead = this.#history.some((batch) => isOf(batch, transaction) && inRange(batch, from, nextOffset));
      if (isRead) expect(told).toContain(nameOf(transaction));
    }
  }
}

function newReference(): ProducerStates {
  const budget = new ProducerBudget(Number.POSITIVE_INFINITY);
  return new ProducerStates({ topic: 't', partition: 0, budget, expirationMs: DAY_MS });
}

/** What does not depend on when it was found out. */
function settled({ openTransaction, ...rest }: ProducerDescription): object {
  return { ...rest, openTransaction: openTransaction && { ...openTransaction, sinceMs: 0 } };
}

function nextEndOf(history: readonly Buffer[]): number {
  const last = history[history.length - 1];
  return last === undefined ? 0 : nextOffsetOf(last, 0);
}

function nameOf({ producerId, firstOffset, lastOffset }: AbortedTransaction): string {
  return `${producerId}: ${firstOffset}-${lastOffset}`;
}

function isOf(batch: Buffer, { producerId, firstOffset, lastOffset }: AbortedTransaction): boolean {
  const offset = baseOffsetOf(batch, 0);
  return producerIdOf(batch, 0) === producerId && offset >= firstOffset && offset < lastOffset;
}

function inRange(batch: Buffer, from: number, to: number): boolean {
  return nextOffsetOf(batch, 0) > from && nextOffsetOf(batch, 0) <= to;
}

const STEPS = inForm({ short: 120, long: 300 });

const HOMES: readonly (readonly [string, number, () => Promise<Home>])[] = [
  ['in memory', inForm({ short: 8, long: 400 }), async () => memoryHome()],
  ['on disk', inForm({ short: 2, long: 100 }), async () => await localHome()],
];

describe.each(HOMES)('a partition %s', (_, histories, newHome) => {
  const live = async (context: TestContext, deletes: boolean): Promise<void> => {
    const programme = new Programme(context);
    for (let i = 0; i < histories; i++) {
      const life = new Life(programme, await newHome(), deletes);
      await life.open();
      for (let step = 0; step < STEPS; step++) await life.step();
      await life.restart(false);
      await life.restart(true);
      programme.tried('histories');
    }
    programme.tried('steps', histories * STEPS);
  };

  test('whose records are deleted knows after any restart what all batches it ever held say (invariants 6, 11, 15)', (context) =>
    live(context, true));

  test('whose side files are lost knows after any restart what its log says (invariants 6, 11, 15, 19)', (context) =>
    live(context, false));
});
