/** Readers that write down in a history what they are handed. */
import { type Client, LogError, type ReadFrom, type ReadOptions, type ReadRecord } from '../../../src/index.js';
import { until } from '../../support/until.js';
import { positionIn, type RecordedTopic, reasonOf, topicInHistory, valueInHistory } from './topic.js';

/** How a reader takes what it is handed. */
export type Unit = 'batches' | 'records';

/** One reader from its start to its end: a process of the history. */
export class RecordedReader<K = string, V = string> {
  readonly #recorded: RecordedTopic<K, V>;
  readonly #process: string;
  readonly #from: ReadFrom;
  /** By partition: the offset to read next, where it is known. */
  readonly positions: number[] = [];

  /** @param from where it begins; at "latest" or a time only its first record tells which offset that is */
  constructor(recorded: RecordedTopic<K, V>, process: string, from: ReadFrom = 'earliest') {
    this.#recorded = recorded;
    this.#process = process;
    this.#from = from;
    if (from === 'earliest') for (let p = 0; p < recorded.partitionCount; p++) this.positions[p] = 0;
    else if (typeof from === 'object' && !(from instanceof Date)) Object.assign(this.positions, from);
    const known = this.positions.flatMap((offset, partition) => [positionIn(recorded, partition, offset)]);
    if (known.length > 0) recorded.history.assign(process, known);
  }

  /** Yields what it is handed, once it is written down. @throws LogError */
  async *read(
    client: Client,
    options: ReadOptions = {},
    unit: Unit = 'batches',
  ): AsyncGenerator<readonly ReadRecord<K, V>[], void, undefined> {
    const reader = client.read(this.#recorded.topic, { from: this.#from, ...options });
    if (unit === 'records') {
      for await (const record of reader) yield this.#seen([record], record.partition, record.offset + 1);
      return;
    }
    for await (const batch of reader.batches()) {
      yield this.#seen(await batch.records(), batch.partition, batch.nextOffset);
    }
  }

  /** Reads to what is the end by now. @throws LogError */
  async readToEnd(client: Client, options: ReadOptions = {}, unit: Unit = 'batches'): Promise<ReadRecord<K, V>[]> {
    const ends = await highWatermarks(client, this.#recorded);
    const all: ReadRecord<K, V>[] = [];
    for await (const records of this.read(client, { ...options, to: 'end' }, unit)) {
      for (const record of records) all.push(record);
    }
    // What was there to be seen is what the broker said before: a reader that stops short of it has missed something.
    for (const [partition, end] of ends.entries()) {
      const offset = Math.max(end, this.positions[partition] ?? 0);
      this.#recorded.history.end(this.#process, positionIn(this.#recorded, partition, offset));
    }
    return all;
  }

  #seen(records: readonly ReadRecord<K, V>[], ofPartition: number, nextOffset: number): readonly ReadRecord<K, V>[] {
    const topic = topicInHistory(this.#recorded);
    this.#recorded.history.poll(
      this.#process,
      records.map((record) => {
        const { partition, offset } = record;
        return { topic, partition, offset, value: valueInHistory(this.#recorded, record) };
      }),
    );
    this.positions[ofPartition] = nextOffset;
    return records;
  }
}

/** Reads the topic from its beginning to its end as a new process. @throws LogError */
export function readAll<K, V>(
  recorded: RecordedTopic<K, V>,
  client: Client,
  process: string,
): Promise<ReadRecord<K, V>[]> {
  return new RecordedReader(recorded, process).readToEnd(client);
}

/** Readers that wait between attempts, on a busy machine. */
const CATCH_UP_LIMIT_MS = 60_000;

/**
 * Follows a topic from its beginning, over as many brokers and connections as it takes: in the history it is one process,
 * which was given its partitions once. So whatever it skips or repeats is a violation.
 */
export class TailReader<K = string, V = string> {
  readonly #recorded: RecordedTopic<K, V>;
  readonly #process: string;
  readonly #reader: RecordedReader<K, V>;
  readonly #onRead: (record: ReadRecord<K, V>) => void;

  /** @param onRead told of each record, in turn */
  constructor(
    recorded: RecordedTopic<K, V>,
    process: string,
    onRead: (record: ReadRecord<K, V>) => void = () => undefined,
  ) {
    this.#recorded = recorded;
    this.#process = process;
    this.#reader = new RecordedReader(recorded, process);
    this.#onRead = onRead;
  }

  /** By partition: the offset to read next. */
  get positions(): readonly number[] {
    return this.#reader.positions;
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
    const ends = await highWatermarks(client, this.#recorded);
    await until(
      () => ends.every((end, partition) => (this.positions[partition] ?? 0) >= end),
      `${this.#process} has read up to ${ends}`,
      CATCH_UP_LIMIT_MS,
    );
  }

  async #read(client: Client, signal: AbortSignal | undefined): Promise<void> {
    const options = { from: { ...this.positions }, ...(signal === undefined ? {} : { signal }) };
    for await (const records of this.#reader.read(client, options)) {
      for (const record of records) this.#onRead(record);
    }
  }
}

/** By partition. */
async function highWatermarks<K, V>(client: Client, { topic }: RecordedTopic<K, V>): Promise<number[]> {
  const { partitions } = await client.admin.getTopic(topic.name);
  return partitions.map(({ highWatermark }) => highWatermark);
}
