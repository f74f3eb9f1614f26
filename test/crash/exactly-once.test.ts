/**
 * Invariants 5, 6, 9 and 11 of a pipeline: two workers in processes of their own read, transform and write in transactions, while
 * one of them, or the broker, is killed with -9 again and again. What committed readers find in the end is each input once.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type Client, connect, LogError, string, topic } from '../../src/index.js';
import { expectNoViolations } from '../history/checker.js';
import { MemberProcess } from '../history/members/member-process.js';
import type { WorkerOptions } from '../history/pipeline/worker-options.js';
import { RecordedProducer } from '../history/recorded/producer.js';
import { readAll, TailReader } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { TimedHistory } from '../history/timed-history.js';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { until } from '../support/until.js';

const ROUNDS = inForm({ short: 5, long: 30 });
const GROUP = 'pipeline';
const INPUT = 'input';
const OUTPUTS = ['output', 'copy'];
const PARTITIONS = 3;
const WORKERS = 2;
const SESSION_MS = 1_500;
const TRANSACTION_TIMEOUT_MS = 5_000;
const REQUEST_TIMEOUT_MS = 2_000;
const MAX_REST_MS = 20;
const ABORT_SHARE = 0.1;
/** Of one start of a worker. */
const MAX_SENDS = 10_000_000;
const WINDOW = 6;
const LINGER_MS = 20;
const MIN_ROUND_MS = 150;
const MAX_ROUND_MS = 900;
const SETTLE_LIMIT_MS = 60_000;

const WORKER_MAIN = new URL('../history/pipeline/worker-main.ts', import.meta.url);
const typed = (name: string) => topic(name, { key: string(), value: string() });

class Pipeline {
  readonly #programme: Programme;
  readonly #proxy: TcpProxy;
  readonly #directory = temporaryDirectory();
  readonly #history = new TimedHistory();
  readonly #started: MemberProcess[] = [];
  readonly #workers: MemberProcess[] = [];
  /** Rejects when a worker ends by itself. */
  readonly #failure: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;
  #broker: BrokerProcess;
  #sending = true;

  constructor(programme: Programme, broker: BrokerProcess, proxy: TcpProxy) {
    this.#programme = programme;
    this.#broker = broker;
    this.#proxy = proxy;
    this.#failure = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failure.catch(() => undefined);
  }

  async check(): Promise<void> {
    await using client = await connect(this.#proxy.address);
    for (const name of [INPUT, ...OUTPUTS]) await client.admin.createTopic({ name, partitions: PARTITIONS });
    for (let i = 0; i < WORKERS; i++) this.#workers[i] = this.#start(i);
    const stopFollowing = new AbortController();
    const followers = OUTPUTS.map((name) =>
      new TailReader(this.#recorded(name), `follower-of-${name}`).follow(client, stopFollowing.signal),
    );
    const sent = this.#send(client);
    await Promise.race([this.#play(), sent.then(() => new Promise<never>(() => undefined)), this.#failure]);
    this.#sending = false;
    const inputs = await sent;
    await Promise.race([this.#settle(client), this.#failure]);
    for (const worker of this.#workers) await worker.leave();
    for (const worker of this.#workers) worker.collect();
    stopFollowing.abort();
    await Promise.all(followers);
    await this.#checkOutputs(client, inputs);
    this.#programme.tried('inputs', inputs.length);
    this.#programme.tried('events', this.#history.events.length);
  }

  async stop(): Promise<void> {
    for (const worker of this.#started) await worker.kill();
    await this.#proxy.stop();
    await this.#broker.stopAndRemove();
  }

  /** @returns the values that were acknowledged */
  async #send(client: Client): Promise<string[]> {
    await using producer = client.producer({ lingerMs: LINGER_MS });
    const recorded = new RecordedProducer(this.#recorded(INPUT), producer, 'source');
    const values: string[] = [];
    let next = 0;
    const send = async (): Promise<void> => {
      while (this.#sending) {
        const number = next++;
        const name = `i${number}`;
        await recorded.send({ name, record: { key: name, value: name, partition: number % PARTITIONS } });
        values.push(name);
      }
    };
    await Promise.all(Array.from({ length: WINDOW }, send));
    return values;
  }

  async #play(): Promise<void> {
    await until(() => this.#workers.every(({ hasBegun }) => hasBegun), 'all workers are at work', SETTLE_LIMIT_MS);
    for (let round = 0; round < ROUNDS; round++) {
      await sleep(MIN_ROUND_MS + this.#programme.below(MAX_ROUND_MS - MIN_ROUND_MS));
      const victim = this.#programme.below(WORKERS + 1);
      if (victim < WORKERS) await this.#replaceWorker(victim);
      else await this.#replaceBroker();
      this.#programme.tried('kills');
    }
  }

  async #replaceWorker(number: number): Promise<void> {
    const worker = this.#workers[number]!;
    await worker.kill();
    worker.collect();
    this.#workers[number] = this.#start(number);
  }

  async #replaceBroker(): Promise<void> {
    this.#history.crash('the broker is killed');
    await this.#broker.stop('SIGKILL');
    this.#broker = await BrokerProcess.start(this.#broker.dataDir);
    this.#proxy.retarget(this.#broker.address);
  }

  #start(number: number): MemberProcess {
    const start = this.#started.length;
    const process = `worker-${number}-${start}`;
    const options: WorkerOptions = {
      address: this.#proxy.address,
      process,
      transactionalId: `worker-${number}`,
      group: GROUP,
      input: INPUT,
      outputs: OUTPUTS,
      sessionTimeoutMs: SESSION_MS,
      transactionTimeoutMs: TRANSACTION_TIMEOUT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      abortShare: ABORT_SHARE,
      maxRestMs: MAX_REST_MS,
      firstSend: (start + 1) * MAX_SENDS,
      seed: this.#programme.below(2 ** 31),
      eventsFile: join(this.#directory, process),
    };
    const worker = new MemberProcess(options, this.#history, WORKER_MAIN);
    worker.ended.catch((error) => this.#fail(error));
    this.#started.push(worker);
    return worker;
  }

  /** Resolves when the group has committed all of the input. */
  async #settle(client: Client): Promise<void> {
    const isDone = async (): Promise<boolean> => {
      try {
        const { partitions } = await client.admin.getGroup(GROUP);
        return (
          partitions.length === PARTITIONS &&
          partitions.every(({ lag, committedOffset }) => lag === 0 && committedOffset !== undefined)
        );
      } catch (error) {
        if (error instanceof LogError && (error.retryable || error.reason === 'GROUP_ID_NOT_FOUND')) return false;
        throw error;
      }
    };
    await until(isDone, 'the pipeline has come to the end of its input', SETTLE_LIMIT_MS);
  }

  async #checkOutputs(client: Client, inputs: readonly string[]): Promise<void> {
    await readAll(this.#recorded(INPUT), client, 'reader-of-input');
    for (const name of OUTPUTS) {
      const records = await readAll(this.#recorded(name), client, `reader-of-${name}`);
      const found = records.map(({ key }) => key ?? '').sort();
      expect(found, `of ${name}`).toEqual([...inputs].sort());
    }
    expectNoViolations(this.#history);
    expect(await client.admin.findHangingTransactions()).toEqual([]);
  }

  #recorded(name: string): RecordedTopic<string, string> {
    return { history: this.#history, topic: typed(name), partitionCount: PARTITIONS };
  }
}

test(
  `a pipeline of transactions whose workers and broker are killed ${ROUNDS} times has each input in its outputs once (invariants 5, 6, 9, 11)`,
  async (context) => {
    const programme = new Programme(context);
    const broker = await BrokerProcess.start();
    const pipeline = new Pipeline(programme, broker, await TcpProxy.start(broker.address));
    try {
      await pipeline.check();
    } finally {
      await pipeline.stop();
    }
  },
  inForm({ short: 120_000, long: 600_000 }),
);
