/** Very many transactional ids: that nobody has to wait for them. */
import { expect, test } from 'vitest';
import { BatchBuilder } from '../../../src/batch/builder.js';
import { STATE_TOPIC_CONFIG } from '../../../src/broker/state-topic/config.js';
import { placementOf } from '../../../src/broker/state-topic/placement.js';
import { encodeTransaction } from '../../../src/broker/transactions/records.js';
import { TRANSACTION_TOPIC } from '../../../src/broker/transactions/transaction-topic.js';
import { systemClock, type Timer } from '../../../src/core/clock.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { producerBatch } from '../../partition/producers/support.js';
import { longestTurnMs } from '../../support/loop-delay.js';
import { ManualClock } from '../../support/manual-clock.js';
import { id } from './machine.js';
import { Transactions } from './support.js';

const IDS = 20_000;
const OPEN = 500;

/** Goes by itself. */
class RunningClock extends ManualClock {
  override now(): number {
    return systemClock.now();
  }
  override monotonic(): number {
    return systemClock.monotonic();
  }
  override setTimer(delayMs: number, callback: () => void): Timer {
    return systemClock.setTimer(delayMs, callback);
  }
  override sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return systemClock.sleep(delayMs, signal);
  }
  override advance(): void {}
}

/** Ids as an earlier run would have left them, some of them with an open transaction. */
async function fill(tx: Transactions): Promise<void> {
  await tx.topic('t', 1);
  const count = 4;
  await tx.topics.createInternal(TRANSACTION_TOPIC, count, STATE_TOPIC_CONFIG);
  const builders = Array.from({ length: count }, () => new BatchBuilder(16 << 20));
  for (let producerId = 0; producerId < IDS; producerId++) {
    const transactionalId = `tx ${producerId}`;
    const { key, value } = encodeTransaction(transactionalId, {
      status: 'empty',
      identity: id(producerId, 0),
      previous: undefined,
      next: undefined,
      cause: undefined,
      timeoutMs: 60_000,
      startMs: undefined,
      updateMs: systemClock.now(),
      partitions: [],
      groupIds: [],
    });
    builders[placementOf(transactionalId, count)]!.tryAppend(systemClock.now(), key, value);
  }
  for (const [index, builder] of builders.entries()) {
    await tx.partition(index, TRANSACTION_TOPIC).append([builder.build()], { acks: 'written' });
  }
  const batches = Array.from({ length: OPEN }, (_, producerId) =>
    producerBatch({ id: producerId, sequence: 0, transactional: true, timestampMs: systemClock.now() }),
  );
  await tx.partition(0).append(batches, { acks: 'written' });
}

test(`${IDS} transactional ids are read and listed, ${OPEN} open transactions aborted, and others get their turns meanwhile (invariant 22)`, async () => {
  const engine = openMemoryEngine();
  const clock = new RunningClock(0);
  const before = await Transactions.started({ engine, clock });
  await fill(before);
  await before.close();
  let tx: Transactions | undefined;
  let names: string[] = [];
  const longestMs = await longestTurnMs(async () => {
    tx = await Transactions.start({ engine, clock, epoch: 2 });
    const { coordinator } = tx;
    for (;;) {
      const isLoaded = await coordinator.findHanging().then(
        () => true,
        () => false,
      );
      if (isLoaded) break;
      await systemClock.sleep(5);
    }
    await tx.whileTimePasses(() => tx?.openCount() === 0, 'all are aborted');
    names = (await coordinator.list()).map(({ transactionalId }) => transactionalId);
  });
  expect(names).toHaveLength(IDS);
  expect(new Set(names).size).toBe(IDS);
  expect(longestMs).toBeLessThan(150);
  await tx!.close();
});
