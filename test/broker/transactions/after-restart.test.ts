/** What a restart has found missing or open does not come into the next transaction. */
import { onTestFinished, test } from 'vitest';
import { TRANSACTION_TOPIC } from '../../../src/broker/transactions/transaction-topic.js';
import { openMemoryEngine } from '../../../src/storage/memory/engine.js';
import { BASE_TIME } from '../../storage/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { FailingEngine, failure } from './failing-engine.js';
import { Transactions, type TransactionsOptions } from './support.js';

async function start(options: TransactionsOptions): Promise<Transactions> {
  const transactions = await Transactions.started(options);
  onTestFinished(() => transactions.close());
  return transactions;
}

test('what may be missing after a power cut may be so after a clean restart that follows upon it (invariant 11)', async () => {
  const engine = openMemoryEngine({ clock: new ManualClock(BASE_TIME) });
  const before = await start({ engine });
  await before.usualTopics();
  const quiet = await before.init();
  const again = await before.init({ transactionalId: 'again' });
  await before.close();
  const unclean = await start({ engine, epoch: 2, startedClean: false });
  const renewed = await unclean.init({ transactionalId: 'again', current: again });
  await unclean.close();
  const clean = await start({ engine, epoch: 3 });
  // Its first half may have been acknowledged, and be gone.
  await rejection(clean.send(quiet, 0, 'second half'), 'TRANSACTION_ABORTABLE');
  await rejection(clean.commit(quiet), 'TRANSACTION_ABORTABLE');
  await clean.send(await clean.abort(quiet), 0, 'anew');
  await clean.send(renewed, 0, 'anew');
});

test('offsets are not added in between, while the abort of what was open cannot be written (invariant 11)', async () => {
  const clock = new ManualClock(BASE_TIME);
  const storage = new FailingEngine(openMemoryEngine({ clock }));
  const { engine } = storage;
  const before = await start({ engine, clock });
  await before.usualTopics();
  const first = await before.init();
  await before.addOffsets(first, 0);
  const producer = await before.commit(first);
  await before.send(producer, 1, 'first half');
  await before.close();
  const tx = await Transactions.start({ engine, clock, epoch: 2 });
  onTestFinished(() => tx.close());
  const topicId = tx.topics.idOf(TRANSACTION_TOPIC);
  storage.fault = (what, id) => (what === 'append' && id.topicId === topicId ? failure('STORAGE_FULL') : undefined);
  await tx.loaded();
  storage.fault = () => undefined;
  await rejection(tx.addOffsets(producer, 2), 'TRANSACTION_ABORTABLE');
  await rejection(tx.send(producer, 0, 'second half'), 'TRANSACTION_ABORTABLE');
  await tx.whileTimePasses(() => tx.openCount() === 0, 'it is aborted', 500);
  await rejection(tx.commit(producer), 'TRANSACTION_ABORTABLE');
});
