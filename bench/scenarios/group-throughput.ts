/** Reading as a group beside reading without one. */
import { bytes, type Client, connect, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { until } from '../../test/support/until.js';
import type { ReaderOrder, ReaderReport, ReaderTask } from '../children/group-reader.js';
import { Child, sharedMs } from '../support/child.js';
import { summarize } from '../support/stats.js';

const TOPIC = 'bench';
const GROUP = 'bench';
const PARTITIONS = 24;
const READERS = 3;
const RECORD_BYTES = 1024;
/** A multiple of the partitions: each has as many. */
const RECORDS_EACH = 40_008;
const TOTAL_RECORDS = PARTITIONS * RECORDS_EACH;
const PASSES = 5;
/** More often than by default, so that each pass has commits in it. */
const COMMIT_INTERVAL_MS = 500;

export interface GroupThroughput {
  readonly groupMegabytesPerSecond: number;
  readonly plainMegabytesPerSecond: number;
}

type Reader = Child<ReaderReport, ReaderOrder>;

/**
 * Three members of a group with auto-commit, and three readers of a third of the partitions each, all in processes of
 * their own, read the same 980 MB in turn.
 */
export async function groupThroughput(): Promise<GroupThroughput> {
  const broker = await BrokerProcess.start();
  const children: Reader[] = [];
  try {
    await using client = await connect(broker.address);
    await client.admin.createTopic({ name: TOPIC, partitions: PARTITIONS });
    await fill(client);
    const common = {
      broker: broker.address,
      topic: TOPIC,
      recordsEach: RECORDS_EACH,
      commitIntervalMs: COMMIT_INTERVAL_MS,
    };
    const start = (group: object): Reader[] =>
      Array.from({ length: READERS }, (_, i) => {
        const partitions = Array.from({ length: PARTITIONS / READERS }, (_, j) => j * READERS + i);
        const task: ReaderTask = { ...common, ...group, partitions };
        const child: Reader = new Child('group-reader.ts', task);
        children.push(child);
        return child;
      });
    const plain = start({});
    const members = start({ group: GROUP });
    await Promise.all(children.map((child) => child.next('ready')));
    await until(() => hasReadAll(client), 'the group has read everything once', 60_000);
    await pass(plain); // warm-up
    const times = { plain: [] as number[], group: [] as number[] };
    for (let i = 0; i < PASSES; i++) {
      times.plain.push(await pass(plain));
      times.group.push(await pass(members));
    }
    const megabytes = (TOTAL_RECORDS * RECORD_BYTES) / 1e6;
    return {
      groupMegabytesPerSecond: megabytes / summarize(times.group).median,
      plainMegabytesPerSecond: megabytes / summarize(times.plain).median,
    };
  } finally {
    for (const child of children) await child.kill();
    await broker.stopAndRemove();
  }
}

async function fill(client: Client): Promise<void> {
  await using producer = client.producer({
    acks: 'written',
    batchBytes: 256 * 1024,
    maxInFlight: 16,
    idempotent: false,
  });
  const to = topic(TOPIC, { value: bytes() });
  const value = Buffer.alloc(RECORD_BYTES, 'x');
  const chunk = Array.from({ length: RECORDS_EACH }, (_, i) => ({ value, partition: i % PARTITIONS }));
  for (let i = 0; i < PARTITIONS; i++) await producer.sendMany(to, chunk);
}

/** Whether each member has its share and has committed the end of it. */
async function hasReadAll(client: Client): Promise<boolean> {
  const groups = await client.admin.listGroups();
  if (groups.length === 0) return false;
  const { state, members, partitions } = await client.admin.getGroup(GROUP);
  return (
    state === 'stable' &&
    members.length === READERS &&
    members.every(({ partitionCount }) => partitionCount === PARTITIONS / READERS) &&
    partitions.length === PARTITIONS &&
    partitions.every(({ committedOffset, lag }) => committedOffset !== undefined && lag === 0)
  );
}

/** Seconds that all of them together take to read everything. */
async function pass(readers: readonly Reader[]): Promise<number> {
  const done = readers.map((reader) => reader.next('done'));
  const startMs = sharedMs();
  for (const reader of readers) reader.order({ kind: 'go' });
  const reports = await Promise.all(done);
  const records = reports.reduce((sum, report) => sum + report.records, 0);
  if (records !== TOTAL_RECORDS) throw new Error(`${records} records were read instead of ${TOTAL_RECORDS}`);
  return (Math.max(...reports.map(({ atMs }) => atMs)) - startMs) / 1000;
}
