import { expect, test } from 'vitest';
import { nextOffsetOf } from '../../../src/batch/layout.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { toEpoch, toOffset } from '../../../src/core/types.js';
import { Partition } from '../../../src/partition/partition.js';
import { ProducerBudget } from '../../../src/partition/producers/producer-budget.js';
import { ProducerStates } from '../../../src/partition/producers/producer-states.js';
import type { AbortedTransaction, ProducerDescription } from '../../../src/partition/producers/types.js';
import { DiskRig, LOG_CONFIG, PowerCuts, type Remains } from '../../storage/power-cuts.js';
import { partition as partitionId } from '../../storage/support.js';
import { inForm, Programme } from '../../support/programme.js';
import { CONFIG, newSharedProducers } from '../support.js';
import { DAY_MS, producerBatch } from './support.js';

/** Looked at besides those that a process leaves which merely stops. */
const MAX_STATES = inForm({ short: 200, long: 50_000 });
const STEPS = inForm({ short: 40, long: 150 });
const SMALL = { ...CONFIG, ...LOG_CONFIG, flushMs: 1_000_000 };

/** What has been promised when a cut comes. */
interface Promised {
  readonly durable: number;
}

async function open(rig: DiskRig, epoch: number): Promise<Partition> {
  const engine = await rig.open();
  const producers = newSharedProducers({}, { abortedInMemory: 2, snapshotEveryBytes: 400 });
  const { clock, logger } = rig;
  const log = await engine.open(partitionId(), toEpoch(epoch), SMALL);
  return await Partition.open({ topic: 't', log, config: SMALL, clock, logger, producers });
}

/** Transactions, idempotent batches and deletions in turn; resolves to all batches that the log has ever held. */
async function live(rig: DiskRig, cuts: PowerCuts<Promised>, programme: Programme): Promise<Buffer[]> {
  const history: Buffer[] = [];
  let promised: Promised = { durable: 0 };
  cuts.watch(rig.disk, () => promised);
  const partition = await open(rig, 1);
  const { log } = partition;
  const learn = async (from: number): Promise<void> => {
    const { chunks } = await log.read(toOffset(from), log.endOffset, 100_000);
    history.push(...chunks.flatMap(splitBatches).map((batch) => Buffer.from(batch)));
    promised = { durable: log.durableOffset };
  };
  const epochs = new Map<number, number>();
  let sequence = 0;
  for (let step = 0; step < STEPS; step++) {
    const from = log.endOffset;
    const dice = programme.below(10);
    const id = 1 + programme.below(3);
    const epoch = epochs.get(id) ?? 0;
    const isOpen = partition.openTransactions().some(({ producerId }) => producerId === id);
    if (dice < 2) await partition.append([producerBatch({ id: 9, sequence: sequence++ })], { acks: 'durable' });
    else if (dice < 3)
      await partition.deleteRecords(log.startOffset + programme.below(log.durableOffset - log.startOffset + 1));
    else if (isOpen) {
      await partition.endTransaction({
        producerId: id,
        producerEpoch: epoch + 1,
        commit: dice < 5,
        coordinatorEpoch: 0,
      });
      epochs.set(id, epoch + 1);
    } else {
      await partition.append([producerBatch({ id, epoch, sequence: 0, count: 2, transactional: true })], {
        acks: 'written',
      });
    }
    await learn(from);
  }
  await partition.close();
  return history;
}

function settled({ openTransaction, ...rest }: ProducerDescription): object {
  return { ...rest, openTransaction: openTransaction && { ...openTransaction, sinceMs: 0 } };
}

/** What the batches below an offset say. */
function statesOf(history: readonly Buffer[], end: number): ProducerStates {
  const budget = new ProducerBudget(Number.POSITIVE_INFINITY);
  const states = new ProducerStates({ topic: 't', partition: 0, budget, expirationMs: DAY_MS });
  for (const batch of history) if (nextOffsetOf(batch, 0) <= end) states.note(batch, 0, 0);
  return states;
}

async function expectKept(
  partition: Partition,
  { facts, at }: Remains<Promised>,
  history: readonly Buffer[],
): Promise<void> {
  const { logStartOffset, logEndOffset, lastStableOffset } = partition;
  expect(logEndOffset, at).toBeGreaterThanOrEqual(facts.durable);
  const states = statesOf(history, logEndOffset);
  expect(partition.producers().map(settled), at).toEqual(states.describe().map(settled));
  const firstOpen = Math.min(logEndOffset, ...states.openTransactions().map(({ firstOffset }) => firstOffset));
  expect(lastStableOffset, at).toBe(Math.max(firstOpen, logStartOffset));
  for (const entry of states.entries()) {
    for (const { firstSequence, baseOffset, lastOffset } of entry.batches) {
      const { producerId: id, epoch } = entry;
      const count = lastOffset + 1 - baseOffset;
      const again = producerBatch({ id, epoch, sequence: firstSequence, count, transactional: id !== 9 });
      expect(await partition.append([again], { acks: 'written' }), at).toMatchObject({
        baseOffset,
        duplicateCount: count,
      });
    }
  }
  await expectAborted(partition, states, at);
}

async function expectAborted(partition: Partition, states: ProducerStates, at: string): Promise<void> {
  const { logStartOffset, lastStableOffset } = partition;
  if (logStartOffset >= lastStableOffset) return;
  const told: AbortedTransaction[] = [];
  for (let next = logStartOffset; next < lastStableOffset; ) {
    const { aborted, nextOffset } = await partition.read(next, 1_000_000, 'read_committed');
    for (const { producerId, firstOffset, lastOffset } of aborted) told.push({ producerId, firstOffset, lastOffset });
    next = nextOffset;
  }
  const expected = states.aborted
    .in(logStartOffset, lastStableOffset)
    .filter(({ firstOffset }) => firstOffset >= logStartOffset);
  for (const { producerId, firstOffset, lastOffset } of expected) {
    expect(told, at).toContainEqual({ producerId, firstOffset, lastOffset });
  }
}

test('after any power cut a partition knows of its producers what its log held (invariants 2, 6, 11, 15, 19)', async (context) => {
  const programme = new Programme(context);
  const { random } = programme;
  const cuts = new PowerCuts<Promised>({ random, randomCuts: inForm({ short: 1, long: 10 }) });
  const history = await live(new DiskRig(), cuts, programme);
  const share = MAX_STATES / cuts.remains.length;
  const chosen = cuts.remains.filter(() => random() < share);
  expect(chosen.length).toBeGreaterThan(MAX_STATES / 2);
  for (const remains of chosen) {
    programme.tried('states');
    const first = new DiskRig(remains.image);
    await expectKept(await open(first, 2), remains, history);
    await expectKept(await open(first.cut(), 3), remains, history);
  }
}, 600_000);
