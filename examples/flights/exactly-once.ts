/** Exactly once: two workers sort the flights into two topics in transactions; one is killed in the middle and started again. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Client } from 'tidelog';
import { departureMs, type Flight } from './data.js';
import type { Checks } from './report.js';
import { departures, isLate, late, punctual, SORTERS } from './sorting-terms.js';

const SCRIPT = fileURLToPath(new URL('sorter.ts', import.meta.url));
const PARTITIONS = 4;
/** Small batches: each is a transaction, and one wants to see many. */
const BATCH_BYTES = 4 * 1024;
const POLL_MS = 50;
const LIMIT_MS = 60_000;

export async function sortExactlyOnce(
  client: Client,
  broker: string,
  flights: readonly Flight[],
  checks: Checks,
): Promise<void> {
  const configs = { 'retention.ms': -1 };
  for (const { name } of [departures, late, punctual]) {
    await client.admin.createTopic({ name, partitions: PARTITIONS, configs });
  }
  await using producer = client.producer({ batchBytes: BATCH_BYTES });
  const records = flights.map((flight, id) => ({
    key: flight.origin,
    value: { ...flight, id },
    timestampMs: departureMs(flight),
  }));
  await producer.sendMany(departures, records);

  const workers = [new Sorter(broker, 'sorter-1'), new Sorter(broker, 'sorter-2')];
  try {
    const startedMs = performance.now();
    await reach(client, flights.length * 0.3);
    await workers[0]?.kill();
    console.log('  sorter-1 was killed with -9 in the middle of its work, and is started again under the same id');
    workers.push(new Sorter(broker, 'sorter-1'));
    const isDone = await reach(client, flights.length);
    const seconds = (performance.now() - startedMs) / 1000;
    checks.check('the group has committed all offsets, in transactions', isDone);
    await Promise.all(workers.map((worker) => worker.stop()));
    await checkSorted(client, flights, seconds, checks);
  } finally {
    for (const worker of workers) await worker.kill();
  }
}

/** Waits until the group has come so far. Resolves to whether it has within the limit. */
async function reach(client: Client, count: number): Promise<boolean> {
  const limit = performance.now() + LIMIT_MS;
  while (performance.now() < limit) {
    const groups = await client.admin.listGroups();
    if (groups.some(({ groupId }) => groupId === SORTERS)) {
      const { partitions } = await client.admin.getGroup(SORTERS);
      const sorted = partitions.reduce((sum, { committedOffset }) => sum + (committedOffset ?? 0), 0);
      if (sorted >= count) return true;
    }
    await sleep(POLL_MS);
  }
  return false;
}

/** Reads both outputs as everybody does, committed, and holds them against the file. */
async function checkSorted(client: Client, flights: readonly Flight[], seconds: number, checks: Checks): Promise<void> {
  const times = new Uint8Array(flights.length);
  let misplaced = 0;
  const counts = { late: 0, punctual: 0 };
  for (const [name, output] of Object.entries({ late, punctual })) {
    for await (const { value } of client.read(output, { from: 'earliest', to: 'end' })) {
      times[value.id] = (times[value.id] ?? 0) + 1;
      counts[name === 'late' ? 'late' : 'punctual']++;
      if (isLate(value) !== (name === 'late')) misplaced++;
    }
  }
  const rate = Math.round(flights.length / seconds).toLocaleString('en-US');
  const sorted = `${counts.late.toLocaleString('en-US')} late, ${counts.punctual.toLocaleString('en-US')} punctual`;
  console.log(`  ${sorted}: ${rate} flights/s, the kill included`);
  checks.check(
    `each of ${flights.length.toLocaleString('en-US')} flights was sorted exactly once`,
    times.every((count) => count === 1) && misplaced === 0,
  );
}

/** A worker in a process of its own. */
class Sorter {
  readonly #child: ReturnType<typeof spawn>;

  constructor(broker: string, transactionalId: string) {
    const args = ['--import', 'tsx', SCRIPT, broker, transactionalId];
    this.#child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}
