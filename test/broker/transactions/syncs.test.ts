/** What a commit waits for: syncs that must come one after the other, however many partitions and groups there are. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { Acks } from '../../../src/partition/partition.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { FailingEngine } from './failing-engine.js';
import { Transactions } from './support.js';

/** Turns after which everything waits that does not wait for a disk. */
const TURNS = 50;

/** A disk on which all syncs that are under way at one time end together, once nothing else goes on. */
async function slowDisk(): Promise<{
  readonly tx: Transactions;
  countRounds(work: Promise<unknown>): Promise<number>;
}> {
  const storage = new FailingEngine(openMemoryEngine({ clock: new ManualClock(BASE_TIME) }));
  const tx = await Transactions.started({ engine: storage.engine });
  onTestFinished(() => tx.close());
  await tx.usualTopics();
  return {
    tx,
    async countRounds(work) {
      let waiting: (() => void)[] = [];
      let rounds = 0;
      let isOver = false;
      storage.fault = (what) => (what === 'flush' ? new Promise((resolve) => waiting.push(resolve)) : undefined);
      const over = (): void => {
        isOver = true;
      };
      work.then(over, over);
      while (!isOver) {
        for (let turn = 0; turn < TURNS; turn++) await nextTurn();
        if (waiting.length > 0) rounds++;
        const ending = waiting;
        waiting = [];
        for (const end of ending) end();
      }
      storage.fault = () => undefined;
      await work;
      return rounds;
    },
  };
}

test('a commit waits for three syncs, one after the other: records, decision, and markers with offsets', async () => {
  const { tx, countRounds } = await slowDisk();
  const producer = await tx.init();
  for (const partition of [0, 1, 2]) await tx.send(producer, partition, 'a');
  await tx.addOffsets(producer, 3);
  expect(await countRounds(tx.commit(producer))).toBe(3);
  expect(await tx.committed()).toEqual([['a'], ['a'], ['a']]);
  expect(await tx.groupOffset()).toBe(3);
});

test.each<[Acks, number]>([
  ['written', 0],
  ['durable', 1],
])('a send in a transaction waits for the disk only when it is asked to: %s', async (acks, rounds) => {
  const { tx, countRounds } = await slowDisk();
  const producer = await tx.init();
  expect(await countRounds(tx.send(producer, 0, 'a', acks))).toBe(rounds);
  await tx.commit(producer);
});

test('much that is sent in a transaction is synced before the commit asks for it, little is not', async () => {
  const { tx, countRounds } = await slowDisk();
  const producer = await tx.init();
  const sends = async (value: string): Promise<void> => {
    await tx.send(producer, 0, value);
    for (let turn = 0; turn < 3 * TURNS; turn++) await nextTurn();
  };
  expect(await countRounds(sends('a'))).toBe(0);
  expect(await countRounds(sends('a'.repeat(65_536)))).toBe(1);
  expect(await countRounds(tx.commit(producer))).toBe(2);
});
