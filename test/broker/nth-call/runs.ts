/** Sends faults through lives: for each fault the first call fails, then the second, until a run meets none. */
import { StateSet } from '../../storage/power-cuts.js';
import type { FileCall } from '../../support/faulty-file-system.js';
import { type Lasting, NthCall, type NthFault } from '../../support/nth-call.js';
import { checkFailedSyncs, checkKept, checkNothingFails } from './checks.js';
import { type CrashLeaves, DATA_DIR, FaultyBroker } from './faulty-broker.js';
import { type Life, LONG_WHILE_MS } from './lives.js';

const LOGS = `${DATA_DIR}/logs`;

/** What crashes have left, in all runs: most faults leave what another one has left, and one start on it is enough. */
const CRASHED = new StateSet();

/** @param ran called after each run that has met a fault */
export async function runThrough(life: Life, fault: NthFault, lasting: Lasting, ran: () => void): Promise<void> {
  for (let at = 1; ; at++) {
    const plan = new NthCall(fault, lasting, at);
    try {
      await run(life, plan);
    } catch (error) {
      throw new Error(`${life.name}, ${plan}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
    if (plan.failed.length === 0) return;
    ran();
  }
}

export async function run(life: Life, plan: NthCall): Promise<void> {
  const broker = await life.prepare();
  broker.fs.rule = plan.rule;
  if (!(await broker.start())) {
    if (plan.lasting === 'once') plan.end();
    if (plan.lasting === 'from then on' || !(await broker.start())) {
      await checkCrashed(broker);
      return;
    }
  }
  await life.live(broker);
  if (plan.failed.length > 0) {
    await checkKept(broker, 'durable', mayFailToRead(plan));
    await checkCrashed(broker);
    plan.end();
    await recover(broker, plan);
    checkFailedSyncs(broker, plan.failed);
  }
  await broker.stop();
  checkFailedSyncs(broker, plan.failed);
  await checkCrashed(broker);
}

/** A full disk keeps nobody from reading (invariant 20), nor does one fault that is over. */
function mayFailToRead({ fault, lasting }: NthCall): boolean {
  return lasting === 'from then on' && (fault === 'EIO' || fault === 'EMFILE');
}

/** What the faults leave of the running broker: with room and handles again everything, else all but what has failed. */
async function recover(broker: FaultyBroker, plan: NthCall): Promise<void> {
  for (let i = 0; i < 3; i++) await broker.pass(LONG_WHILE_MS);
  if (!plan.failed.some((call) => isFinal(call, plan.fault))) await checkHealed(broker);
  else await checkOthersServed(broker);
  await checkKept(broker, 'durable');
}

/** A failed sync is final, whatever the errno; a disk that is broken may be so for good. */
function isFinal({ name }: FileCall, fault: NthFault): boolean {
  return fault === 'EIO' || name === 'fdatasync' || (fault === 'ENOSPC' && name === 'syncDirectory');
}

async function checkHealed(broker: FaultyBroker): Promise<void> {
  checkNothingFails(broker);
  const expectDone = (what: string, done: boolean): void => {
    if (!done) throw new Error(`${what} does not work again: ${broker.lastFailure.message}`);
  };
  for (const name of ['orders', 'state']) {
    if (broker.ledger.topics.get(name)?.state !== 'there') expectDone('creation', await broker.create(name, 1, {}));
  }
  expectDone('creation', await broker.create('later', 1, { 'retention.records': '2' }));
  await checkAppends(broker, expectDone);
  expectDone('alteration', await broker.setFlushMs('later', '9'));
  expectDone('an increase', await broker.addPartitions('later', 2));
  expectDone('the new partition', await broker.produce('later', 1, 'durable'));
  expectDone('listing', await broker.listByTime('later'));
  expectDone('deletion', await broker.delete('later'));
  await broker.pass(LONG_WHILE_MS);
  await checkTidy(broker);
  checkNothingFails(broker);
}

async function checkAppends(broker: FaultyBroker, expectDone: (what: string, done: boolean) => void): Promise<void> {
  for (const { name, partitionCount } of broker.ledger.topicsThere()) {
    for (let partition = 0; partition < partitionCount; partition++) {
      for (let i = 0; i < 3; i++) expectDone('an append', await broker.produce(name, partition, 'durable'));
      expectDone('an append', await broker.produce(name, partition, 'written'));
    }
  }
  await broker.pass(LONG_WHILE_MS);
  for (const { topic, partition } of broker.broker.topics.partitions()) {
    const { log } = partition;
    const segments = log.segments();
    const active = segments.at(-1)!.baseOffset;
    if (partition.highWatermark < partition.logEndOffset) throw new Error(`${topic.record.name} is not synced in time`);
    if (partition.config.cleanupCompact && log.cleanedOffset < active)
      throw new Error('compaction does not work again');
    if (partition.config.retentionRecords > 0 && log.startOffset < active - 4)
      throw new Error('retention does not work again');
  }
}

/** Nothing is left of what was removed, but perhaps an empty directory, which the next start takes away. */
async function checkTidy({ broker, disk }: FaultyBroker): Promise<void> {
  const partitions = [...broker.topics.partitions()];
  const known = new Set(partitions.map(({ topic, partition }) => `${topic.record.id}-${partition.index}`));
  for (const directory of await disk.readdir(LOGS)) {
    const names = await disk.readdir(`${LOGS}/${directory}`);
    if (!known.has(directory) && (names.length > 0 || directory.endsWith('.deleted'))) {
      throw new Error(`${directory} is left`);
    }
    const left = names.find((name) => /\.(deleted|cleaned|swap)$/.test(name));
    if (left !== undefined) throw new Error(`${directory}/${left} is left`);
  }
}

/** Partitions that failed say so and take nothing; all others do. */
async function checkOthersServed(broker: FaultyBroker): Promise<void> {
  const failures = new Set(broker.broker.topics.failures().map(({ topic, partition }) => `${topic}-${partition}`));
  for (const { name, partitionCount } of broker.ledger.topicsThere()) {
    for (let partition = 0; partition < partitionCount; partition++) {
      const taken = await broker.produce(name, partition, 'durable');
      if (taken === failures.has(`${name}-${partition}`)) {
        throw new Error(
          `${name}-${partition} ${taken ? 'has failed and takes appends' : `is refused, though healthy: ${broker.lastFailure.message}`}`,
        );
      }
      if (!taken && broker.lastFailure.reason !== 'STORAGE_ERROR')
        throw new Error(`a failed partition answers ${broker.lastFailure.reason}`);
    }
  }
}

/** What a process that ends here leaves, and what a power cut leaves. */
async function checkCrashed(broker: FaultyBroker): Promise<void> {
  await checkStartsOn(broker, 'everything');
  await checkStartsOn(broker, 'what was synced');
}

async function checkStartsOn(broker: FaultyBroker, left: CrashLeaves): Promise<void> {
  const image = broker.crash(left);
  if (!CRASHED.add(image, `${left} ${broker.ledger.facts()}`)) return;
  const again = new FaultyBroker(broker.ledger, image);
  try {
    if (!(await again.start())) throw new Error(again.lastFailure.message);
    await again.settled();
    checkNothingFails(again);
    await checkDirectories(again);
    await checkKept(again, left === 'everything' ? 'all' : 'durable');
    const errors = again.logger.lines.filter(({ level }) => level === 'error');
    if (errors.length > 0) throw new Error(`it logs ${errors[0]!.message}`);
    await again.checkTakesAppends();
    await again.stop();
  } catch (error) {
    throw new Error(`after a crash that leaves ${left}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

/** A start leaves no directory of a partition that is not there. */
async function checkDirectories({ broker, disk }: FaultyBroker): Promise<void> {
  const partitions = [...broker.topics.partitions()];
  const expected = partitions.map(({ topic, partition }) => `${topic.record.id}-${partition.index}`);
  const directories = await disk.readdir(LOGS);
  if ([...directories].sort().join() !== expected.sort().join()) {
    throw new Error(`there are directories ${directories}, for partitions ${expected}`);
  }
}
