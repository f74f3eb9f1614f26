/** A producer that writes down in a history what it sends and what it is answered. */
import type { PartitionRange, Producer, RecordInput, SendResult } from '../../../src/index.js';
import type { PendingSend } from '../history.js';
import { type RecordedTopic, topicInHistory } from './topic.js';

export interface NamedRecord<K, V> {
  /** What the history calls its value: unique in the topic. */
  readonly name: string;
  readonly record: RecordInput<K, V>;
}

/** Where a record is. */
export type Placed = Pick<SendResult, 'partition' | 'offset'>;

export interface RecordedProducerOptions {
  /** Whether an acknowledgement promises what the test is about. Default true; if not, it is written down as no answer. */
  readonly ackCounts?: boolean;
}

const NO_ANSWER = new Error('an acknowledgement that promises too little is none');

/** Sends to one topic: a process of the history. */
export class RecordedProducer<K = string, V = string> {
  readonly #recorded: RecordedTopic<K, V>;
  readonly #producer: Producer;
  readonly #process: string;
  readonly #ackCounts: boolean;

  constructor(
    recorded: RecordedTopic<K, V>,
    producer: Producer,
    process: string,
    { ackCounts = true }: RecordedProducerOptions = {},
  ) {
    this.#recorded = recorded;
    this.#producer = producer;
    this.#process = process;
    this.#ackCounts = ackCounts;
  }

  /** @throws what the producer throws, once it is written down */
  async send(named: NamedRecord<K, V>): Promise<Placed> {
    const send = this.#begun(named);
    const result = await noted([send], this.#producer.send(this.#recorded.topic, named.record));
    this.#acknowledge(send, result);
    return result;
  }

  /**
   * Sends records to one partition in one call.
   * @returns where records are of which that is known: when those of other producers lie between the first and the last of
   *   them, only those two
   * @throws what the producer throws, once it is written down
   */
  async sendMany(records: readonly NamedRecord<K, V>[]): Promise<Placed[]> {
    const sends = records.map((named) => this.#begun(named));
    const call = this.#producer.sendMany(
      this.#recorded.topic,
      records.map(({ record }) => record),
    );
    const { partitions } = await noted(sends, call);
    const [range] = partitions;
    if (partitions.length !== 1 || range?.count !== sends.length) {
      throw new Error(`${sends.length} records were acknowledged as ${JSON.stringify(partitions)}`);
    }
    return knownOffsets(range).map(([index, offset]) => {
      const result = { partition: range.partition, offset };
      this.#acknowledge(sends[index]!, result);
      return result;
    });
  }

  #begun({ name, record: { key, value } }: NamedRecord<K, V>): PendingSend {
    const details = typeof key === 'string' ? { key, tombstone: value === null } : {};
    return this.#recorded.history.send(this.#process, topicInHistory(this.#recorded), name, details);
  }

  #acknowledge(send: PendingSend, { partition, offset }: Placed): void {
    if (this.#ackCounts) send.ack(partition, offset);
    else send.error(NO_ANSWER);
  }
}

async function noted<T>(sends: readonly PendingSend[], answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    for (const send of sends) send.error(error);
    throw error;
  }
}

/** Of the records of a call, each with its number: those whose offset is known. */
function knownOffsets({ firstOffset, lastOffset, count }: PartitionRange): [index: number, offset: number][] {
  if (lastOffset - firstOffset + 1 === count) return Array.from({ length: count }, (_, i) => [i, firstOffset + i]);
  return [
    [0, firstOffset],
    [count - 1, lastOffset],
  ];
}
