/** A consumer group over the flights: what its workers have handled between them, though one is killed in the middle. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client, GroupDescription } from 'tidelog';
import { flightsTopic } from './data.js';
import { GROUP, SESSION_TIMEOUT_MS } from './group-terms.js';
import { GroupView } from './group-view.js';
import type { Checks } from './report.js';
import { DemoWorker } from './workers.js';

/** Three workers are to take about this long for all records, however many there are: one wants to see them work. */
const WORK_MS = 3_000;
const VICTIM = 1;
/** The victim is killed when the group has handled this share of the records. */
const KILL_AT = 0.4;
const LIMIT_MS = 60_000;
const POLL_MS = 100;

export async function handleInGroup(client: Client, broker: string, directory: string, checks: Checks): Promise<void> {
  const ends = await endOffsets(client);
  const total = ends.reduce((sum, end) => sum + end, 0);
  const recordsPerSecond = total / 3 / (WORK_MS / 1000);
  const workers: DemoWorker[] = [];
  const hire = (): void => {
    workers.push(DemoWorker.start(broker, `worker-${workers.length + 1}`, directory, recordsPerSecond));
  };
  const view = new GroupView(total);
  try {
    for (let i = 0; i < 3; i++) hire();
    const victim = workers[VICTIM];
    await watch(client, view, ({ lag }) => lag <= total * (1 - KILL_AT) && victim?.hasHandled === true);
    await victim?.kill();
    view.note(`${victim?.name} was killed with -9; its session ends in ${SESSION_TIMEOUT_MS / 1000} s at most`);
    hire();
    view.note('worker-4 was started');
    // However late its process has started.
    const isDone = await watch(client, view, ({ lag, names }) => lag === 0 && names.includes('worker-4'));
    view.end();
    const exitCodes = await Promise.all(workers.filter((worker) => worker !== victim).map((worker) => worker.stop()));
    const counts = countHandled(workers, ends);
    console.log(`  ${describe(workers, counts)}`);
    checks.check('the lag has fallen to 0, and worker-4 is a member', isDone);
    checks.check(`each of ${total.toLocaleString('en-US')} records was handled at least once`, counts.missing === 0);
    checks.check(
      'the other workers left in order',
      exitCodes.every((code) => code === 0),
    );
  } finally {
    view.end();
    for (const worker of workers) await worker.kill();
  }
}

async function endOffsets(client: Client): Promise<readonly number[]> {
  const ends = await client.admin.listOffsets(flightsTopic, 'latest');
  return ends.toSorted((a, b) => a.partition - b.partition).map(({ offset }) => offset);
}

/** What is waited for. */
interface Seen {
  readonly lag: number;
  /** Of the members. */
  readonly names: readonly string[];
}

/** Shows the group until something is reached. Resolves to whether it was within the limit. */
async function watch(client: Client, view: GroupView, isReached: (seen: Seen) => boolean): Promise<boolean> {
  const limit = performance.now() + LIMIT_MS;
  while (performance.now() < limit) {
    const group = await currentGroup(client);
    if (group !== undefined) {
      const lag = view.show(group);
      if (isReached({ lag, names: group.members.map(({ clientId }) => clientId) })) return true;
    }
    await sleep(POLL_MS);
  }
  return false;
}

/** Undefined until the first worker has joined. */
async function currentGroup(client: Client): Promise<GroupDescription | undefined> {
  const groups = await client.admin.listGroups();
  return groups.some(({ groupId }) => groupId === GROUP) ? await client.admin.getGroup(GROUP) : undefined;
}

interface HandledCounts {
  readonly missing: number;
  /** Records that were handled twice or more. */
  readonly repeated: number;
  readonly byWorker: readonly number[];
}

function countHandled(workers: readonly DemoWorker[], ends: readonly number[]): HandledCounts {
  const times = ends.map((end) => new Uint8Array(end));
  const byWorker = workers.map((worker) => {
    let count = 0;
    for (const { partition, firstOffset, lastOffset } of worker.handled()) {
      const own = times[partition];
      for (let offset = firstOffset; own !== undefined && offset <= lastOffset; offset++) {
        own[offset] = (own[offset] ?? 0) + 1;
        count++;
      }
    }
    return count;
  });
  const countOf = (is: (times: number) => boolean): number =>
    times.reduce((sum, own) => sum + own.reduce((count, handled) => count + (is(handled) ? 1 : 0), 0), 0);
  return { missing: countOf((handled) => handled === 0), repeated: countOf((handled) => handled > 1), byWorker };
}

function describe(workers: readonly DemoWorker[], { repeated, byWorker }: HandledCounts): string {
  const shares = workers.map(({ name }, i) => `${name} ${byWorker[i]?.toLocaleString('en-US')}`);
  const twice = `${repeated.toLocaleString('en-US')} were handled twice: what the killed one had not committed yet`;
  return `handled by ${shares.join(', ')}; ${twice}`;
}
