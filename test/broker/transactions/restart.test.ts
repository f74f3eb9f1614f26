/** What becomes of transactions when the broker dies, at every append of their lives. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { TransactionalProducer } from '../../../src/broker/transactions/coordinator-types.js';
import { LogError } from '../../../src/core/errors.js';
import type { StorageEngine } from '../../../src/storage/engine.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { MortalEngine } from './mortal-engine.js';
import { Transactions } from './support.js';

/** What a client does, one after the other; each transaction sends its name to two partitions and adds its number. */
const PLAN: readonly { readonly name: string; readonly number: number; readonly commit: boolean }[] = [
  { name: 'one', number: 1, commit: true },
  { name: 'two', number: 2, commit: false },
  { name: 'three', number: 3, commit: true },
];

/** How far the client has come. */
class Client {
  identity: TransactionalProducer | undefined;
  /** The call that has no answer. */
  asking: { readonly number: number; readonly call: 'init' | 'send' | 'end' } | undefined;
  readonly answered = new Set<number>();

  async run(tx: Transactions): Promise<void> {
    this.asking = { number: 0, call: 'init' };
    this.identity = await tx.init();
    for (const { name, number, commit } of PLAN) {
      this.asking = { number, call: 'send' };
      await tx.send(this.identity, 0, name);
      await tx.send(this.identity, 1, name);
      await tx.addOffsets(this.identity, number);
      this.asking = { number, call: 'end' };
      this.identity = commit ? await tx.commit(this.identity) : await tx.abort(this.identity);
      this.answered.add(number);
      // Of this one the completion comes on record; of the next the decision after it takes its place.
      if (number === 1) tx.clock.advance(600);
    }
    this.asking = undefined;
  }
}

async function engineWithTopics(): Promise<StorageEngine> {
  const engine = openMemoryEngine({ clock: new ManualClock(BASE_TIME) });
  const before = await Transactions.started({ engine });
  await before.usualTopics();
  // So that the topics of the coordinators are there.
  await before.addOffsets(await before.init({ transactionalId: 'other' }), 0);
  await before.close();
  return engine;
}

/** Nothing is open any more: every transaction is there as a whole, or not at all; what was answered is so. */
async function checkWhole(tx: Transactions, client: Client): Promise<ReadonlySet<string>> {
  await tx.whileTimePasses(() => tx.openCount() === 0, 'nothing is open any more', 10);
  await tx.whileTimePasses(async () => (await tx.groupOffset()) !== 'UNSTABLE_OFFSET_COMMIT', 'no offset waits', 10);
  const [first, second] = await tx.committed();
  expect(second).toEqual(first);
  const visible = new Set(first);
  expect(visible.size).toBe(first!.length);
  expect(visible.has('two')).toBe(false);
  for (const { name, number, commit } of PLAN) {
    if (client.answered.has(number)) expect(visible.has(name)).toBe(commit);
    if (client.asking !== undefined && client.asking.number < number) expect(visible.has(name)).toBe(false);
    if (client.asking?.number === number && client.asking.call !== 'end') expect(visible.has(name)).toBe(false);
  }
  const last = PLAN.filter(({ name }) => visible.has(name)).at(-1);
  expect(await tx.groupOffset()).toBe(last?.number);
  return visible;
}

/** A transaction whose completion is not on record is completed once more: a client that knows of it is to wait. */
async function sendWhenCompleted(tx: Transactions, identity: TransactionalProducer): Promise<void> {
  for (;;) {
    try {
      await tx.send(identity, 0, 'last');
      return;
    } catch (error) {
      if (!(error instanceof LogError && error.reason === 'CONCURRENT_TRANSACTIONS')) throw error;
      tx.clock.advance(10);
      await nextTurn();
    }
  }
}

/** The client goes on with what it knows, and its next transaction works. */
async function goOn(tx: Transactions, client: Client, visible: ReadonlySet<string>): Promise<void> {
  const { asking } = client;
  let { identity } = client;
  if (identity === undefined) identity = await tx.init();
  const plan = PLAN.find(({ number }) => number === asking?.number);
  if (plan !== undefined && asking?.call === 'end') {
    const end = plan.commit ? tx.commit(identity) : tx.abort(identity);
    if (!plan.commit || visible.has(plan.name)) identity = await end;
    else {
      await rejection(end, 'TRANSACTION_ABORTABLE');
      identity = await tx.abort(identity);
    }
  } else if (plan !== undefined) identity = await tx.abort(identity);
  await sendWhenCompleted(tx, identity);
  await tx.send(identity, 1, 'last');
  await tx.commit(identity);
  expect(await tx.committed()).toEqual([[...visible, 'last'], [...visible, 'last'], []]);
}

/** @returns the number of appends of the life that died, if it did */
async function liveAndDie(diesAt: number, lands: boolean, recoveryDiesAt: number | undefined): Promise<boolean> {
  const engine = await engineWithTopics();
  const mortal = new MortalEngine(engine, diesAt, lands);
  const client = new Client();
  let isDone = false;
  const first = await Transactions.start({ engine: mortal.engine, epoch: 2 });
  const life = first.loaded().then(() => client.run(first));
  void life.then(() => {
    isDone = true;
  });
  await until(() => isDone || mortal.isDead, 'the client is done, or the broker dead');
  let epoch = 3;
  if (recoveryDiesAt !== undefined) {
    const again = new MortalEngine(engine, recoveryDiesAt, lands);
    const second = await Transactions.start({ engine: again.engine, epoch: epoch++ });
    for (let turn = 0; turn < 200 && !again.isDead; turn++) {
      second.clock.advance(10);
      await nextTurn();
    }
  }
  await using tx = await Transactions.started({ engine, epoch });
  await goOn(tx, client, await checkWhole(tx, client));
  return mortal.isDead;
}

describe('the broker dies', () => {
  test.each([
    ['before', false, undefined],
    ['after', true, undefined],
    ['after, and again in the recovery before its first', true, 1],
    ['after, and again in the recovery after its second', true, 2],
    ['before, and again in the recovery before its third', false, 3],
  ] as const)(
    '%s each append: what is decided comes to be, all else is aborted (invariant 11)',
    async (_, lands, recovery) => {
      let lives = 0;
      for (let diesAt = 1; ; diesAt++) {
        if (!(await liveAndDie(diesAt, lands, recovery))) break;
        lives++;
      }
      expect(lives).toBeGreaterThan(15);
    },
  );
});
