/** How fast a group comes to rest: after a member's death, after a member has left, when very many join. */
import { setTimeout as sleep } from 'node:timers/promises';
import { bytes, connect, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { until } from '../../test/support/until.js';
import type { CrowdOrder, CrowdReport, CrowdTask } from '../children/group-crowd.js';
import type { FollowerOrder, FollowerReport, FollowerTask } from '../children/group-follower.js';
import { Child, sharedMs } from '../support/child.js';

const TOPIC = 'bench';

const FOLLOWERS = 4;
const PARTITIONS = 12;
const SESSION_TIMEOUT_MS = 2_000;
const TICK_MS = 5;
/** After each change the group is left in peace for so long. */
const SETTLE_MS = 1_000;

export interface HandOverTimes {
  /** From `kill -9` until each of the member's partitions has given others a record. */
  readonly killedMs: number;
  readonly sessionTimeoutMs: number;
  /** From when a member was told to leave. */
  readonly leftMs: number;
}

/** Four members follow a topic that has a record in each partition every 5 ms; one leaves, then another is killed. */
export async function handOvers(): Promise<HandOverTimes> {
  const broker = await BrokerProcess.start();
  const members: Follower[] = [];
  const stop = new AbortController();
  try {
    await using client = await connect(broker.address);
    await client.admin.createTopic({ name: TOPIC, partitions: PARTITIONS });
    await using producer = client.producer({ lingerMs: 0 });
    const ticking = tick(async () => {
      const records = Array.from({ length: PARTITIONS }, (_, partition) => ({ value: Buffer.from('x'), partition }));
      await producer.sendMany(topic(TOPIC, { value: bytes() }), records);
    }, stop.signal);
    for (let i = 0; i < FOLLOWERS; i++) members.push(new Follower(broker.address));
    const share = (count: number): boolean =>
      members.slice(0, count).every(({ lastMs }) => lastMs.size >= PARTITIONS / count);
    await until(() => share(FOLLOWERS), 'each member has read', 60_000);
    await settle(members);
    const leftMs = await handedOver(members, (member) => member.child.order({ kind: 'leave' }));
    await settle(members);
    const killedMs = await handedOver(members, (member) => void member.child.kill());
    stop.abort();
    await ticking;
    return { killedMs, leftMs, sessionTimeoutMs: SESSION_TIMEOUT_MS };
  } finally {
    stop.abort();
    for (const { child } of members) await child.kill();
    await broker.stopAndRemove();
  }
}

class Follower {
  readonly child: Child<FollowerReport, FollowerOrder>;
  /** By partition: when it was last given a record. */
  readonly lastMs = new Map<number, number>();
  /** By partition: when it was first given a record since `settle`. */
  readonly firstMs = new Map<number, number>();

  constructor(broker: string) {
    const task: FollowerTask = { broker, topic: TOPIC, group: 'bench', sessionTimeoutMs: SESSION_TIMEOUT_MS };
    this.child = new Child('group-follower.ts', task);
    this.child.on(({ partition, atMs }) => {
      this.lastMs.set(partition, atMs);
      if (!this.firstMs.has(partition)) this.firstMs.set(partition, atMs);
    });
  }
}

/** Lets what is under way come to an end, then begins to look at who is given what. */
async function settle(members: readonly Follower[]): Promise<void> {
  await sleep(SETTLE_MS);
  for (const member of members) {
    member.lastMs.clear();
    member.firstMs.clear();
  }
  await sleep(SETTLE_MS / 2);
}

/** The last member goes. Resolves to the time until others were given records of all its partitions. */
async function handedOver(members: Follower[], go: (member: Follower) => void): Promise<number> {
  const gone = members.pop();
  if (gone === undefined) throw new Error('nobody is left');
  const partitions = [...gone.lastMs.keys()];
  const kept = members.map((member) => new Set(member.lastMs.keys()));
  const startMs = sharedMs();
  go(gone);
  const times = new Map<number, number>();
  const look = (): boolean => {
    for (const partition of partitions) {
      const others = members.filter((member, i) => !kept[i]?.has(partition) && member.firstMs.has(partition));
      const firstMs = Math.min(...others.map((member) => member.firstMs.get(partition) ?? Number.POSITIVE_INFINITY));
      if (Number.isFinite(firstMs)) times.set(partition, firstMs);
    }
    return times.size === partitions.length;
  };
  await until(look, 'all partitions were handed over', 60_000);
  return Math.max(...times.values()) - startMs;
}

async function tick(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await work();
    await sleep(TICK_MS);
  }
}

const MEMBERS = 500;
const PROCESSES = 2;
/** Nothing has changed for so long: the group is at rest. */
const REST_MS = 500;

/**
 * Time in ms from when 500 members of one group, with a connection each, begin to join until each has its one partition
 * for good. They are in two processes.
 */
export async function convergence(): Promise<number> {
  const broker = await BrokerProcess.start();
  const children: Child<CrowdReport, CrowdOrder>[] = [];
  try {
    await using client = await connect(broker.address);
    await client.admin.createTopic({ name: TOPIC, partitions: MEMBERS });
    const consumers = MEMBERS / PROCESSES;
    const task: CrowdTask = {
      broker: broker.address,
      topic: TOPIC,
      group: 'bench',
      groupEach: false,
      consumers,
      connections: consumers,
      partitionsEach: 1,
    };
    return await joined(children, task, PROCESSES);
  } finally {
    for (const child of children) await child.kill();
    await broker.stopAndRemove();
  }
}

/** Starts crowds and lets all of them join. Resolves to the ms that it took until all had settled. */
async function joined(children: Child<CrowdReport, CrowdOrder>[], task: CrowdTask, processes: number): Promise<number> {
  for (let i = 0; i < processes; i++) children.push(new Child('group-crowd.ts', task));
  await Promise.all(children.map((child) => child.next('ready')));
  const settledMs = new Map<object, number>();
  for (const child of children) {
    child.on((report) => {
      if (report.kind === 'settled') settledMs.set(child, report.atMs);
      else settledMs.delete(child);
    });
  }
  const startMs = sharedMs();
  for (const child of children) child.order({ kind: 'join' });
  const latestMs = (): number => Math.max(...settledMs.values());
  const atRest = (): boolean => settledMs.size === processes && sharedMs() - latestMs() > REST_MS;
  await until(atRest, 'all members have settled', 120_000);
  return latestMs() - startMs;
}

const IDLE_GROUPS = 1_000;
const CONNECTIONS = 20;
const WARM_UP_MS = 3_000;
const IDLE_MS = 20_000;

export interface IdleGroups {
  /** CPU of the broker alone, in percent of a core. */
  readonly cpuPercent: number;
  readonly residentMegabytes: number;
}

/** A broker with 1,000 groups of one member each and nothing to read, beside the same broker before they came. */
export async function idleGroups(): Promise<{ readonly none: IdleGroups; readonly all: IdleGroups }> {
  const broker = await BrokerProcess.start();
  const children: Child<CrowdReport, CrowdOrder>[] = [];
  try {
    await using client = await connect(broker.address);
    await client.admin.createTopic({ name: TOPIC, partitions: 1 });
    const none = await idle(broker);
    const task: CrowdTask = {
      broker: broker.address,
      topic: TOPIC,
      group: 'bench',
      groupEach: true,
      consumers: IDLE_GROUPS,
      connections: CONNECTIONS,
      partitionsEach: 1,
    };
    await joined(children, task, 1);
    return { none, all: await idle(broker) };
  } finally {
    for (const child of children) await child.kill();
    await broker.stopAndRemove();
  }
}

async function idle(broker: BrokerProcess): Promise<IdleGroups> {
  await sleep(WARM_UP_MS);
  const cpuBefore = broker.cpuSeconds;
  await sleep(IDLE_MS);
  const cpuSeconds = broker.cpuSeconds - cpuBefore;
  return { cpuPercent: (cpuSeconds / (IDLE_MS / 1000)) * 100, residentMegabytes: broker.residentBytes / 1e6 };
}
