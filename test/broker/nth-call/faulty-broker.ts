/** A whole broker on a disk in memory whose calls fail as planned, and a ledger of what its users were told. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { baseOffsetOf } from '../../../src/batch/layout.js';
import { Broker } from '../../../src/broker/broker.js';
import { LogError, type Reason } from '../../../src/core/errors.js';
import type { Random } from '../../../src/core/random.js';
import { toOffset } from '../../../src/core/types.js';
import type { Acks, Partition } from '../../../src/partition/partition.js';
import { openLocalEngine } from '../../../src/storage/local/engine.js';
import { keyedBatch } from '../../partition/support.js';
import { BASE_TIME } from '../../storage/support.js';
import { FaultyFileSystem, type FileCall } from '../../support/faulty-file-system.js';
import { ManualClock } from '../../support/manual-clock.js';
import { type DiskImage, PowerLossDisk } from '../../support/power-loss-disk.js';
import { randomFrom } from '../../support/random.js';
import { type RecordingLogger, recordingLogger } from '../../support/recording-logger.js';
import { GROUP_CONFIG } from '../groups/support.js';
import { type KnownTopic, Ledger, type Sent } from './ledger.js';

export const DATA_DIR = '/data';
export const CLEANER_BACKOFF_MS = 1_000;
export const RETENTION_INTERVAL_MS = 5_000;

/** A segment takes two values of this size. */
const VALUE_BYTES = 7_000;
/** Far more than anything takes on a disk in memory. */
const STEP_LIMIT_MS = 20_000;
/** Turns of the event loop without a call to the disk after which nothing is under way. */
const QUIET_TURNS = 6;
const MAX_TURNS = 20_000;

/** What a user may be told when a disk fails. */
const DOCUMENTED: ReadonlySet<Reason> = new Set<Reason>(['STORAGE_FULL', 'STORAGE_ERROR', 'RESOURCE_LIMIT']);
const DOCUMENTED_AT_START: ReadonlySet<Reason> = new Set<Reason>([...DOCUMENTED, 'DATA_DIR_UNUSABLE']);

/** All of the disk as it is, after the end of the process; or only what was synced, after that of the power. */
export type CrashLeaves = 'everything' | 'what was synced';

export class FaultyBroker {
  readonly ledger: Ledger;
  readonly disk: PowerLossDisk;
  readonly fs: FaultyFileSystem;
  readonly clock: ManualClock = new ManualClock(BASE_TIME);
  readonly logger: RecordingLogger = recordingLogger();
  /** Numbers of the last calls before each start. */
  readonly #starts: number[] = [];
  #broker: Broker | undefined;

  constructor(ledger: Ledger = new Ledger(), image?: DiskImage) {
    this.ledger = ledger;
    this.disk = new PowerLossDisk(BASE_TIME, image);
    this.fs = new FaultyFileSystem(this.disk);
  }

  /** Resolves to whether it serves. */
  async start(): Promise<boolean> {
    this.#starts.push(this.fs.calls.length);
    this.#broker = await this.#attempt('start', DOCUMENTED_AT_START, () => this.#start());
    return this.#broker !== undefined;
  }

  async #start(): Promise<Broker> {
    const { clock, logger, fs } = this;
    const engine = await openLocalEngine({ dataDir: DATA_DIR, clock, logger, fileSystem: fs, tailCacheBytes: 0 });
    try {
      return await Broker.start({
        engine,
        clock,
        logger,
        random: seeded(this.ledger.sent.length + this.ledger.failures.length),
        version: '0',
        defaultPartitions: 1,
        topicDefaults: {},
        maxRequestBytes: 1 << 20,
        groups: GROUP_CONFIG,
        producers: { expirationMs: 86_400_000, maxProducers: 1000, maxMessageIds: 1000 },
        transactions: { maxTimeoutMs: 900_000, idExpirationMs: 7 * 86_400_000, maxIds: 100, stateTopicPartitions: 1 },
        lifecycle: {
          retentionCheckIntervalMs: RETENTION_INTERVAL_MS,
          cleanerBackoffMs: CLEANER_BACKOFF_MS,
          cleanerDedupeBufferBytes: 1 << 20,
        },
        limits: { maxPartitionsPerTopic: 100, maxPartitions: 1000 },
      });
    } catch (error) {
      await engine.close();
      throw error;
    }
  }

  /** The calls from one on until the next start. */
  callsOfLife(from: number): readonly FileCall[] {
    const end = this.#starts.find((start) => start >= from) ?? this.fs.calls.length;
    return this.fs.calls.slice(from - 1, end);
  }

  get broker(): Broker {
    if (this.#broker === undefined) throw new Error('the broker does not run');
    return this.#broker;
  }

  /** Stops cleanly. */
  async stop(): Promise<void> {
    const broker = this.broker;
    await this.#attempt('stop', DOCUMENTED, () => broker.close());
    await this.settled();
    this.#broker = undefined;
  }

  /** What a process that ends now leaves: all of it, or only what was synced. */
  crash(left: CrashLeaves): DiskImage {
    return this.disk.survivors((limit) => (left === 'everything' ? limit : 0));
  }

  /** Lets time pass, and what is due then be done. */
  async pass(ms: number): Promise<void> {
    this.clock.advance(ms);
    await this.settled();
  }

  /** Resolves when nothing is under way any more but what waits for time to pass. */
  async settled(): Promise<void> {
    let quiet = 0;
    let calls = this.fs.calls.length;
    for (let turn = 0; quiet < QUIET_TURNS; turn++) {
      if (turn > MAX_TURNS) throw new Error('the broker does not come to rest');
      await nextTurn();
      quiet = this.fs.calls.length === calls ? quiet + 1 : 0;
      calls = this.fs.calls.length;
    }
  }

  isThere(topic: string): boolean {
    return this.ledger.topics.get(topic)?.state === 'there';
  }

  /** 0 when the partition is not served. */
  highWatermark(topic: string, partition: number): number {
    const known = this.broker.topics.partitions();
    const found = [...known].find((one) => one.topic.record.name === topic && one.partition.index === partition);
    return found?.partition.highWatermark ?? 0;
  }

  async create(name: string, partitionCount: number, configs: Readonly<Record<string, string>>): Promise<boolean> {
    const topic = newTopic(name, configs);
    this.ledger.topics.set(name, topic);
    const created = await this.#attempt(`create ${name}`, DOCUMENTED, async () => {
      const { topics } = this.broker;
      return await topics.create(name, partitionCount, { 'segment.bytes': '16384', ...configs }, false);
    });
    if (created === undefined) {
      if (this.lastFailure.outcome === 'none') topic.state = 'gone';
      return false;
    }
    topic.state = 'there';
    topic.id = created.record.id;
    topic.partitionCount = partitionCount;
    return true;
  }

  async addPartitions(name: string, partitionCount: number): Promise<boolean> {
    const done = await this.#update(name, partitionCount, {});
    if (done) this.ledger.topics.get(name)!.partitionCount = partitionCount;
    return done;
  }

  async setFlushMs(name: string, value: string): Promise<boolean> {
    const topic = this.ledger.topics.get(name)!;
    topic.flushMs.push(value);
    const done = await this.#update(name, 0, { 'flush.ms': value });
    if (done) topic.flushMs = [value];
    else if (this.lastFailure.outcome === 'none') topic.flushMs.pop();
    return done;
  }

  async #update(name: string, partitionCount: number, setConfigs: Readonly<Record<string, string>>): Promise<boolean> {
    const change = { partitionCount, setConfigs, resetConfigs: [] };
    const updated = await this.#attempt(`update ${name}`, DOCUMENTED, () =>
      this.broker.topics.update(name, change, false),
    );
    return updated !== undefined;
  }

  async delete(name: string): Promise<boolean> {
    const topic = this.ledger.topics.get(name)!;
    topic.state = 'unknown';
    const deleted = await this.#attempt(`delete ${name}`, DOCUMENTED, async () => {
      await this.broker.topics.delete(name);
      return true;
    });
    if (deleted) topic.state = 'gone';
    else if (this.lastFailure.outcome === 'none') topic.state = 'there';
    return deleted === true;
  }

  /** Resolves to whether it was acknowledged. */
  async produce(topic: string, partition: number, acks: Acks, key = 'k'): Promise<boolean> {
    const { ledger, clock } = this;
    const value = `${ledger.sent.length}.`.padEnd(VALUE_BYTES, '.');
    const sent: Sent = {
      topic,
      topicId: ledger.topics.get(topic)!.id,
      partition,
      key,
      value,
      acks,
      state: 'unknown',
      offset: -1,
      bytes: undefined,
      atCall: 0,
    };
    ledger.sent.push(sent);
    const batch = keyedBatch([[key, value]], clock.now());
    const command = {
      topic,
      topicId: '',
      partition,
      acks,
      batches: [batch],
      records: [],
      expectedOffset: undefined,
      transactionalId: '',
      messageIds: [],
    };
    const result = await this.#attempt(`produce to ${topic}-${partition}`, DOCUMENTED, () =>
      this.broker.produce.produce(command),
    );
    if (result === undefined) {
      if (this.lastFailure.outcome === 'none') sent.state = 'failed';
      return false;
    }
    if (baseOffsetOf(batch, 0) !== result.baseOffset) throw new Error('the batch does not have the offset told');
    Object.assign(sent, { state: 'acknowledged', offset: result.baseOffset, bytes: Buffer.from(batch) });
    sent.atCall = this.fs.calls.length;
    return true;
  }

  /** Appends to each partition, besides what the ledger knows. */
  async checkTakesAppends(): Promise<void> {
    for (const { topic, partition } of this.broker.topics.partitions()) {
      const batch = keyedBatch([['a key', 'a value']], this.clock.now());
      const work = partition.append([batch], { acks: 'durable' });
      await bounded(`an append to ${topic.record.name}-${partition.index}`, work);
    }
  }

  async deleteRecords(topic: string, partition: number, beforeOffset: number): Promise<boolean> {
    const { deletable, deleted } = this.ledger.topics.get(topic)!;
    deletable.set(partition, Math.max(beforeOffset, deletable.get(partition) ?? 0));
    const partitions = [{ partition, beforeOffset, beforeTimeMs: undefined }];
    const answer = await this.#attempt(`delete records of ${topic}-${partition}`, DOCUMENTED, () =>
      this.broker.deleteRecords({ topic, topicId: '', partitions }),
    );
    if (answer) deleted.set(partition, beforeOffset);
    return answer !== undefined;
  }

  async listByTime(topic: string): Promise<boolean> {
    const spec = { kind: 'time', timestampMs: BASE_TIME + 1 } as const;
    const answer = await this.#attempt(`list offsets of ${topic}`, DOCUMENTED, () =>
      this.broker.listOffsets({ topic, partitions: [], spec }),
    );
    return answer !== undefined;
  }

  /** All that can be read, or undefined when reading fails. */
  async read(partition: Partition): Promise<Buffer[] | undefined> {
    return await this.#attempt(`read ${partition.topic}-${partition.index}`, DOCUMENTED, async () => {
      const chunks: Buffer[] = [];
      for (let at = partition.logStartOffset; at < partition.highWatermark; ) {
        const slice = await partition.read(toOffset(at), 20_000);
        if (slice.nextOffset <= at) throw new Error(`reading does not get on at ${at}`);
        chunks.push(...slice.chunks);
        at = slice.nextOffset;
      }
      return chunks;
    });
  }

  get lastFailure(): LogError {
    return this.ledger.failures.at(-1)!.error;
  }

  /** The value of `work`, or undefined when it fails in a documented way, which is noted. */
  async #attempt<T>(what: string, reasons: ReadonlySet<Reason>, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await bounded(what, work());
    } catch (error) {
      if (!(error instanceof LogError) || !reasons.has(error.reason)) {
        throw new Error(`${what} fails in a way that is not documented: ${describe(error)}`, { cause: error });
      }
      this.ledger.failures.push({ what, error });
      return undefined;
    }
  }
}

function describe(error: unknown): string {
  return error instanceof LogError ? `${error.reason}, ${error.message}` : String(error);
}

async function bounded<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} hangs`)), STEP_LIMIT_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function newTopic(name: string, configs: Readonly<Record<string, string>>): KnownTopic {
  return {
    name,
    id: '',
    state: 'unknown',
    compacted: configs['cleanup.policy'] === 'compact',
    retentionRecords: configs['retention.records'] === undefined ? undefined : Number(configs['retention.records']),
    partitionCount: 0,
    flushMs: [undefined],
    deletable: new Map(),
    deleted: new Map(),
  };
}

/** Ids that are the same in each run. */
function seeded(seed: number): Random {
  const random = randomFrom(seed);
  const digits = (count: number): string =>
    Array.from({ length: count }, () => Math.floor(random() * 16).toString(16)).join('');
  return { uuid: () => `${digits(8)}-${digits(4)}-4${digits(3)}-8${digits(3)}-${digits(12)}`, next: random };
}
