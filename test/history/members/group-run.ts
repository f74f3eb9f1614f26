/** A group over two topics while records are sent to them: what its tests of faults have in common. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, connect, LogError, string, type Topic, topic } from '../../../src/index.js';
import type { Programme } from '../../support/programme.js';
import { until } from '../../support/until.js';
import { expectNoViolations } from '../checker.js';
import type { HistoryEvent, Position } from '../events.js';
import { GroupAdmin } from '../recorded/group-admin.js';
import { RecordedProducer } from '../recorded/producer.js';
import { readAll } from '../recorded/reader.js';
import type { RecordedTopic } from '../recorded/topic.js';
import { TimedHistory } from '../timed-history.js';

export const GROUP = 'billing';
export const TOPIC_NAMES: readonly string[] = ['orders', 'payments'];
const FIRST_PARTITIONS = 3;
/** Sends unanswered at once, of each topic, and how long they wait: a few hundred records a second, several in a batch. */
const WINDOW = 9;
const LINGER_MS = 40;
/** Of each partition. */
const KEYS = 4;
const AUDIT_INTERVAL_MS = 20;
const SETTLE_LIMIT_MS = 60_000;

type TestTopic = Topic<string, string>;

export class GroupRun {
  readonly programme: Programme;
  readonly history: TimedHistory = new TimedHistory();
  readonly #calmAddress: () => string;
  readonly #topics: readonly TestTopic[] = TOPIC_NAMES.map((name) => topic(name, { key: string(), value: string() }));
  readonly #partitions = new Map<string, number>(TOPIC_NAMES.map((name) => [name, FIRST_PARTITIONS]));
  /** Rejects with what is watched. */
  readonly #failure: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;
  #sending = true;
  #sent: Promise<void> = Promise.resolve();
  /** Settled when the administrator is free. Never rejects. */
  #administration: Promise<unknown> = Promise.resolve();

  /** @param calmAddress where nothing is done to connections; the broker there may be another one each time */
  constructor(programme: Programme, calmAddress: () => string) {
    this.programme = programme;
    this.#calmAddress = calmAddress;
    this.#failure = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failure.catch(() => undefined);
  }

  /** What must not fail while something goes on that is `guarded`. */
  watch(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#fail(error));
  }

  /** Settled as `work`; rejected at once when something that is watched fails. */
  guarded<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#failure]);
  }

  async createTopics(): Promise<void> {
    await using client = await this.#connect();
    for (const [name, partitions] of this.#partitions) await client.admin.createTopic({ name, partitions });
  }

  /** Begins to send to all partitions, until `settle`. A failure is one of what is watched. */
  send(address: string): void {
    this.#sent = this.#send(address);
    this.watch(this.#sent);
  }

  async #send(address: string): Promise<void> {
    await using client = await connect(address);
    await Promise.all(this.#topics.map((one) => this.#sendTo(client, one)));
  }

  async addPartition(): Promise<void> {
    await using client = await this.#connect();
    const { name } = this.#topics[this.programme.below(this.#topics.length)]!;
    const partitions = (this.#partitions.get(name) ?? 0) + 1;
    await client.admin.updateTopic({ name, partitions });
    this.history.crash(`partition ${name}/${partitions - 1} added`);
    this.#partitions.set(name, partitions);
  }

  /** Looks at what the group has committed, over and over, until `settle`. */
  async audit(): Promise<void> {
    while (this.#sending) {
      await sleep(AUDIT_INTERVAL_MS);
      await this.#administrate((admin) => admin.committed()).catch(ignoreUnavailable);
    }
  }

  /** Moves the group back in a partition of which it has committed an offset. */
  async reset(): Promise<void> {
    await this.#administrate(async (admin) => {
      const committed = await admin.committed();
      const from = committed[this.programme.below(committed.length)];
      if (from === undefined) return;
      await admin.reset({ ...from, offset: this.programme.below(from.offset + 1) });
    });
  }

  /** Resolves when nothing is sent any more and the group has committed all that was. */
  async settle(): Promise<void> {
    this.#sending = false;
    await this.#sent;
    await using client = await this.#connect();
    let left: unknown;
    const isDone = async (): Promise<boolean> => {
      await sleep(AUDIT_INTERVAL_MS);
      const committed = await this.#administrate((admin) => admin.committed());
      left = await this.#unread(client, committed);
      return Array.isArray(left) && left.length === 0;
    };
    try {
      await until(isDone, 'the group has committed all', SETTLE_LIMIT_MS);
    } catch (error) {
      throw new Error(`The group did not come to the end of ${JSON.stringify(left)}`, { cause: error });
    }
  }

  /** When all members are gone: nothing was skipped, taken back, lost, or owned twice, and all was handled. */
  async check(): Promise<void> {
    await using client = await this.#connect();
    this.history.assign('last-member', await this.#administrate((admin) => admin.committed()), GROUP);
    for (const one of this.#topics) await readAll(this.#recorded(one), client, `last-reader-${one.name}`);
    expectNoViolations(this.history);
    const unhandled = unhandledRecords(this.history.events);
    if (unhandled.length > 0) throw new Error(`No member has handled ${JSON.stringify(unhandled)}`);
    this.programme.tried('acknowledged records', this.history.acks);
  }

  async #sendTo(client: Client, to: TestTopic): Promise<void> {
    const producer = client.producer({ lingerMs: LINGER_MS });
    const recorded = new RecordedProducer(this.#recorded(to), producer, `producer-of-${to.name}`);
    let next = 0;
    const worker = async (): Promise<void> => {
      while (this.#sending) {
        const number = next++;
        const name = `${to.name}-${number}`;
        const partition = number % (this.#partitions.get(to.name) ?? 1);
        const key = `${partition}-${this.programme.below(KEYS)}`;
        await recorded.send({ name, record: { key, value: name, partition } });
      }
    };
    await Promise.all(Array.from({ length: WINDOW }, worker));
  }

  /** Partitions of which the group has not committed all. */
  async #unread(client: Client, committed: readonly Position[]): Promise<Position[]> {
    const ends = await Promise.all(this.#topics.map(({ name }) => client.admin.getTopic(name)));
    const positions = ends.flatMap(({ name, partitions }) =>
      partitions.map(({ partition, highWatermark }): Position => ({ topic: name, partition, offset: highWatermark })),
    );
    const committedOf = (end: Position): number =>
      committed.find(({ topic, partition }) => topic === end.topic && partition === end.partition)?.offset ?? 0;
    return positions.filter((end) => committedOf(end) < end.offset);
  }

  #recorded(one: TestTopic): RecordedTopic<string, string> {
    return { history: this.history, topic: one, partitionCount: this.#partitions.get(one.name) ?? 0 };
  }

  /** One call after the other. */
  #administrate<T>(work: (admin: GroupAdmin) => Promise<T>): Promise<T> {
    const turn = this.#administration.then(async () => {
      using admin = new GroupAdmin(this.history, GROUP, this.#calmAddress());
      return await work(admin);
    });
    this.#administration = turn.catch(() => undefined);
    return turn;
  }

  #connect(): Promise<Client> {
    return connect(this.#calmAddress());
  }
}

function ignoreUnavailable(error: unknown): undefined {
  if (!(error instanceof LogError) || !error.retryable) throw error;
}

/** Acknowledged, and finished by no member. */
function unhandledRecords(events: readonly HistoryEvent[]): string[] {
  const nameOf = (topicName: string, partition: number, offset: number): string =>
    `${topicName}/${partition}@${offset}`;
  const topics = new Map(
    events.flatMap((event) => (event.kind === 'send' ? [[event.send, event.topic] as const] : [])),
  );
  const unhandled = new Set<string>();
  for (const event of events) {
    if (event.kind === 'ack') unhandled.add(nameOf(topics.get(event.send)!, event.partition, event.offset));
  }
  for (const event of events) {
    if (event.kind !== 'finish') continue;
    for (const { topic: name, partition, offset } of event.records) unhandled.delete(nameOf(name, partition, offset));
  }
  return [...unhandled];
}
