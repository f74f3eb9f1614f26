/**
 * Producers and readers that come and go at random, over gRPC, while records are deleted and compacted and the broker is
 * stopped and started again: what they did and saw ends in the history checker (invariants 1, 4, 5, 6, 7, 16).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { LogError } from '../../src/index.js';
import { inForm, Programme } from '../support/programme.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { until } from '../support/until.js';
import { expectNoViolations } from './checker.js';
import type { HistoryOptions } from './events.js';
import { History } from './history.js';
import { produce } from './sessions/producing.js';
import { read, readAll } from './sessions/reading.js';
import { MAX_MESSAGE_BYTES, ORDERS, PARTITIONS, Setting, TABLE, type TestTopic } from './sessions/setting.js';

/** Each has a broker and a history of its own. */
const ROUNDS = inForm({ short: 1, long: 90 });
const ROUND_MS = 5_000;
/** On a busy machine a round goes on until enough has happened. */
const MAX_ROUND_MS = 60_000;
const LEAST: Readonly<Record<string, number>> = {
  'records of orders': 300,
  // As many as fill several segments of each partition: only those are compacted.
  'records of table': 1_000,
  'sends refused': 1,
  'sends of unknown outcome': 1,
  deletions: 1,
  restarts: 1,
};
const PRODUCERS = 4;
const READERS = 4;
const MAX_PAUSE_MS = 1_500;
/** Of what is not deleted yet, the share that a deletion takes. */
const DELETED_SHARE = 0.3;

const OPTIONS: HistoryOptions = { compacted: new Set([TABLE.name]) };

test(
  'clients that come and go find every promise kept (invariants 1, 4, 5, 6, 7, 16)',
  async (context) => {
    const programme = new Programme(context);
    for (let round = 0; round < ROUNDS; round++) {
      const history = await playRound(programme);
      expectNoViolations(history, OPTIONS);
      programme.tried('events', history.events.length);
    }
  },
  inForm({ short: 120_000, long: 1_800_000 }),
);

async function playRound(programme: Programme): Promise<History> {
  const dataDir = temporaryDirectory();
  const stop = new AbortController();
  const broker = await RestartingBroker.start(dataDir);
  const setting = new Setting(programme, new History(), broker.address, stop.signal);
  try {
    await createTopics(setting);
    const work = [
      ...sessionsInTurn(setting, PRODUCERS, 'producer', produce),
      ...sessionsInTurn(setting, READERS, 'reader', read),
      deleteRecords(setting),
      restart(setting, broker),
    ];
    try {
      await Promise.race([Promise.all(work), enoughHappened(setting)]);
    } finally {
      stop.abort();
      await Promise.allSettled(work);
    }
    await Promise.all(work);
    await readRest(setting, broker);
    return setting.history;
  } finally {
    await broker.close();
  }
}

/** A broker that is always found at one address. */
class RestartingBroker {
  readonly address: string;
  readonly #dataDir: string;
  #broker: RunningBroker;

  private constructor(broker: RunningBroker, dataDir: string) {
    this.address = broker.address;
    this.#broker = broker;
    this.#dataDir = dataDir;
  }

  static async start(dataDir: string): Promise<RestartingBroker> {
    return new RestartingBroker(await serve(dataDir), dataDir);
  }

  async restart(): Promise<void> {
    await this.#broker.close();
    this.#broker = await serve(this.#dataDir, this.address);
  }

  async close(): Promise<void> {
    await this.#broker.close(0);
  }
}

async function serve(dataDir: string, listen = '127.0.0.1:0'): Promise<RunningBroker> {
  return await startBroker({ storage: { dataDir }, listen, lifecycle: { cleanerBackoffMs: 50 } });
}

async function createTopics(setting: Setting): Promise<void> {
  await using client = await setting.connect();
  const configs = { 'segment.bytes': 16 * 1024, 'max.message.bytes': MAX_MESSAGE_BYTES, 'file.delete.delay.ms': 0 };
  const compaction = { 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': 0.1, 'delete.retention.ms': 100 };
  const partitions = PARTITIONS.length;
  await client.admin.createTopic({ name: ORDERS.name, partitions, configs });
  await client.admin.createTopic({ name: TABLE.name, partitions, configs: { ...configs, ...compaction } });
}

/** So many at a time, one after the other. */
function sessionsInTurn(
  setting: Setting,
  count: number,
  kind: string,
  live: (setting: Setting, process: string) => Promise<void>,
): Promise<void>[] {
  return Array.from({ length: count }, async (_, place) => {
    for (let session = 0; !setting.stopped.aborted; session++) {
      await live(setting, `${kind}-${place}-${session}`);
      setting.happened(`${kind}s`);
    }
  });
}

async function deleteRecords(setting: Setting): Promise<void> {
  await using client = await setting.connect();
  const { programme, history } = setting;
  const starts = PARTITIONS.map(() => 0);
  while (await pause(setting)) {
    const partition = setting.pick(PARTITIONS);
    const start = starts[partition]!;
    const left = setting.knownEnd(ORDERS.name, partition) - start;
    const offset = start + programme.below(Math.ceil(left * DELETED_SHARE) + 1);
    history.trim({ topic: ORDERS.name, partition, offset });
    try {
      await client.admin.deleteRecords(ORDERS, [{ partition, beforeOffset: offset }]);
      starts[partition] = offset;
      if (offset > start) setting.happened('deletions');
    } catch (error) {
      // What was acknowledged as written only need not be durable yet.
      if (!(error instanceof LogError) || error.reason !== 'OFFSET_OUT_OF_RANGE') throw error;
    }
  }
}

async function restart(setting: Setting, broker: RestartingBroker): Promise<void> {
  while (await pause(setting)) {
    setting.history.crash('the broker is stopped and started again');
    await broker.restart();
    setting.happened('restarts');
  }
}

/** @returns whether the round goes on after it */
async function pause({ programme, stopped }: Setting): Promise<boolean> {
  await sleep(programme.below(MAX_PAUSE_MS), undefined, { signal: stopped }).catch(() => {});
  return !stopped.aborted;
}

/** A history in which little happened proves little. */
async function enoughHappened(setting: Setting): Promise<void> {
  await sleep(ROUND_MS);
  await until(
    () => setting.stopped.aborted || Object.entries(LEAST).every(([what, least]) => setting.count(what) >= least),
    'enough has happened',
    MAX_ROUND_MS,
  );
}

/** After a stop all is durable: then everything is read, until compaction has come to it, and after a further stop. */
async function readRest(setting: Setting, broker: RestartingBroker): Promise<void> {
  let pass = 0;
  const readTopic = (topic: TestTopic): Promise<number> => readAll(setting, topic, `reader ${pass++} of ${topic.name}`);
  await broker.restart();
  await readTopic(ORDERS);
  await until(async () => (await readTopic(TABLE)) > 0, 'records of the table are gone');
  await broker.restart();
  await readTopic(ORDERS);
  await readTopic(TABLE);
}
