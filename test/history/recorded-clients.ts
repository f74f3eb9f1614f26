/** Producers and readers that write down in a history what they do and see. */
import {
  type Client,
  LogError,
  type PartitionRange,
  type Producer,
  type ReadRecord,
  type Topic,
} from '../../src/index.js';
import { until } from '../support/until.js';
import type { History, PendingSend } from './history.js';

/** The topic that the clients of a test use, and where they write down what they do. */
export interface Recorded<K = string, V = string> {
  readonly history: History;
  readonly topic: Topic<K, V>;
  readonly partitionCount: number;
  /** What the history calls the topic, where its name was that of other topics before. */
  readonly topicInHistory?: string;
  /** What the history calls the value of a record. Default: the text itself, without what fills it up. */
  readonly valueInHistory?: (record: ReadRecord<K, V>) => string;
}

export interface LoadOptions {
  /** Asked before each send. A load ends as well when its producer is closed. */
  readonly goesOn: () => boolean;
}

export interface SendLoadOptions extends LoadOptions {
  /** Told of each send or call that failed. */
  readonly onFailure?: (error: unknown) => void;
  /** Size of a value, in bytes. Default: as short as can be. The history has values without what fills them up. */
  readonly valueBytes?: number;
}

export interface SingleLoadOptions extends SendLoadOptions {
  /** Where the records go, in turn. */
  readonly partitions: readonly number[];
  /** Sends unanswered at once. */
  readonly window: number;
  /** Whether an acknowledgement promises what the test is about. Default true; if not, it is written down as no answer. */
  readonly ackCounts?: boolean;
}

export interface ManyLoadOptions extends SendLoadOptions {
  readonly partition: number;
  /** Records of a call. */
  readonly count: number;
}

const NO_ANSWER = new Error('an acknowledgement that promises too little is none');

/** Sends one record after the other. */
export async function sendSingly(
  { history, topic }: Recorded,
  producer: Producer,
  process: string,
  { partitions, window, goesOn, onFailure, valueBytes = 0, ackCounts = true }: SingleLoadOptions,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (goesOn()) {
      const number = next++;
      const value = `${process}-${number}`;
      const send = history.send(process, topic.name, value);
      try {
        const to = partitions[number % partitions.length] ?? 0;
        const { partition, offset } = await producer.send(topic, { value: filled(value, valueBytes), partition: to });
        if (ackCounts) send.ack(partition, offset);
        else send.error(NO_ANSWER);
      } catch (error) {
        send.error(error);
        onFailure?.(error);
        if (reasonOf(error) === 'CLOSED') return;
      }
    }
  };
  await Promise.all(Array.from({ length: window }, worker));
}

/** Sends many records a call. */
export async function sendMany(
  { history, topic }: Recorded,
  producer: Producer,
  process: string,
  { partition, count, goesOn, onFailure, valueBytes = 0 }: ManyLoadOptions,
): Promise<void> {
  for (let call = 0; goesOn(); call++) {
    const values = Array.from({ length: count }, (_, i) => `${process}-${call}-${i}`);
    const sends = values.map((value) => history.send(process, topic.name, value));
    try {
      const { partitions } = await producer.sendMany(
        topic,
        values.map((value) => ({ value: filled(value, valueBytes), partition })),
      );
      for (const range of partitions) acknowledge(sends, range);
    } catch (error) {
      for (const send of sends) send.error(error);
      onFailure?.(error);
      if (reasonOf(error) === 'CLOSED') return;
    }
  }
}

/** Records of other producers may lie between the first and the last of a call: then only those two are known. */
function acknowledge(
  sends: readonly PendingSend[],
  { partition, firstOffset, lastOffset, count }: PartitionRange,
): void {
  if (count !== sends.length) throw new Error(`${count} of ${sends.length} records were acknowledged`);
  const isContiguous = lastOffset - firstOffset + 1 === count;
  for (const [index, send] of sends.entries()) {
    if (isContiguous || index === 0) send.ack(partition, firstOffset + index);
    else if (index === count - 1) send.ack(partition, lastOffset);
  }
}

/** Readers that wait between attempts, on a busy machine. */
const CATCH_UP_LIMIT_MS = 60_000;

/**
 * Follows a topic from its beginning, over as many brokers and connections as it takes: in the history it is one process,
 * which was given its partitions once. So whatever it skips or repeats is a violation.
 */
export class TailReader<K = string, V = string> {
  readonly #recorded: Recorded<K, V>;
  readonly #process: string;
  readonly #onRead: (record: ReadRecord<K, V>) => void;
  /** By partition: the offset to read next. */
  readonly positions: number[];

  /** @param onRead told of each record, in turn */
  constructor(recorded: Recorded<K, V>, process: string, onRead: (record: ReadRecord<K, V>) => void = () => undefined) {
    this.#recorded = recorded;
    this.#process = process;
    this.#onRead = onRead;
    this.positions = Array.from({ length: recorded.partitionCount }, () => 0);
    assign(recorded, process, this.positions);
  }

  /** Goes on where it was, until the client is closed or the signal aborts. @throws LogError if it may not go on there */
  async follow(client: Client, signal?: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.#read(client, signal);
      } catch (error) {
        const reason = reasonOf(error);
        if (reason === 'CLOSED' || reason === 'CANCELLED') return;
        if (!(error instanceof LogError && error.retryable)) throw error;
      }
    }
  }

  /** Resolves when it has read up to what a reader can see now. */
  async catchUp(client: Client): Promise<void> {
    const ends = await highWatermarks(client, this.#recorded.topic.name);
    await until(
      () => ends.every((end, partition) => (this.positions[partition] ?? 0) >= end),
      `${this.#process} has read up to ${ends}`,
      CATCH_UP_LIMIT_MS,
    );
  }

  async #read(client: Client, signal: AbortSignal | undefined): Promise<void> {
    const options = { from: { ...this.positions }, ...(signal === undefined ? {} : { signal }) };
    for await (const batch of client.read(this.#recorded.topic, options).batches()) {
      const records = await batch.records();
      poll(this.#recorded, this.#process, records);
      for (const record of records) this.#onRead(record);
      this.positions[batch.partition] = batch.nextOffset;
    }
  }
}

/** Reads the topic from its beginning to its end as a new process. @throws LogError */
export async function readAll<K, V>(
  recorded: Recorded<K, V>,
  client: Client,
  process: string,
): Promise<ReadRecord<K, V>[]> {
  const ends = await highWatermarks(client, recorded.topic.name);
  const next = ends.map(() => 0);
  assign(recorded, process, next);
  const all: ReadRecord<K, V>[] = [];
  for await (const batch of client.read(recorded.topic, { from: 'earliest', to: 'end' }).batches()) {
    const records = await batch.records();
    poll(recorded, process, records);
    for (const record of records) all.push(record);
    next[batch.partition] = batch.nextOffset;
  }
  // What was there to be seen is what the broker said before: a reader that stops short of it has missed something.
  for (const [partition, end] of ends.entries()) {
    recorded.history.end(process, {
      topic: nameInHistory(recorded),
      partition,
      offset: Math.max(end, next[partition] ?? 0),
    });
  }
  return all;
}

/** Reads all over and over, for as long as `goesOn` and the client is open. */
export async function readAllRepeatedly(
  recorded: Recorded,
  client: Client,
  process: string,
  { goesOn }: LoadOptions,
): Promise<void> {
  for (let number = 0; goesOn(); number++) {
    try {
      await readAll(recorded, client, `${process}-${number}`);
    } catch (error) {
      if (reasonOf(error) === 'CLOSED') return;
      if (!(error instanceof LogError && error.retryable)) throw error;
    }
  }
}

/** The high watermarks of a topic by partition. */
async function highWatermarks(client: Client, name: string): Promise<number[]> {
  const { partitions } = await client.admin.getTopic(name);
  return partitions.map(({ highWatermark }) => highWatermark);
}

function nameInHistory<K, V>({ topic, topicInHistory }: Recorded<K, V>): string {
  return topicInHistory ?? topic.name;
}

function assign<K, V>(recorded: Recorded<K, V>, process: string, offsets: readonly number[]): void {
  const topic = nameInHistory(recorded);
  recorded.history.assign(
    process,
    offsets.map((offset, partition) => ({ topic, partition, offset })),
  );
}

function poll<K, V>(recorded: Recorded<K, V>, process: string, records: readonly ReadRecord<K, V>[]): void {
  const topic = nameInHistory(recorded);
  const { valueInHistory = ({ value }) => unfilled(String(value)) } = recorded;
  recorded.history.poll(
    process,
    records.map((record) => ({
      topic,
      partition: record.partition,
      offset: record.offset,
      value: valueInHistory(record),
    })),
  );
}

const FILLER = '.';

/** A value as it is sent: in the history it goes without what fills it up. */
export function filled(value: string, bytes: number): string {
  return value.padEnd(bytes, FILLER);
}

function unfilled(value: string): string {
  const end = value.indexOf(FILLER);
  return end < 0 ? value : value.slice(0, end);
}

function reasonOf(error: unknown): string | undefined {
  return error instanceof LogError ? error.reason : undefined;
}
