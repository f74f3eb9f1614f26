/** A history in order: what became of each send, and what is known to stand at each offset. Built in one pass. */
import type { AckEvent, EndTransactionEvent, ErrorEvent, HistoryEvent, Place, PollEvent, SendEvent } from './events.js';

export type Isolation = NonNullable<PollEvent['isolation']>;

/** A number that stands for "never": an event index beyond every history. */
export const NEVER: number = Number.POSITIVE_INFINITY;

export class Transaction {
  readonly id: string;
  /** Event indexes, NEVER if there is none. */
  commitRequestedAt: number = NEVER;
  endedAt: number = NEVER;
  result: EndTransactionEvent['result'] | 'open' = 'open';
  /** Of its records the first that a reader of committed data saw. */
  seen: Entry | undefined;

  constructor(id: string) {
    this.id = id;
  }

  /** Whether all of it must be there. */
  get isCommitted(): boolean {
    return this.result === 'committed' || (this.seen !== undefined && this.result !== 'aborted');
  }
}

/** A send and what became of it. */
export class Attempt {
  readonly event: SendEvent;
  /** Event indexes, NEVER if there is none. */
  readonly sentAt: number;
  failedAt: number = NEVER;
  failure: ErrorEvent['outcome'] | undefined;
  readonly transaction: Transaction | undefined;
  /** Where its value is known to stand: once, unless it was sent again. */
  readonly entries: Entry[] = [];

  constructor(event: SendEvent, sentAt: number, transaction: Transaction | undefined) {
    this.event = event;
    this.sentAt = sentAt;
    this.transaction = transaction;
  }

  /** Whether the history tells whether the record is in the log. */
  get isDecided(): boolean {
    return this.entries.length > 0 || this.failure === 'none';
  }
}

/** A value at an offset, by an acknowledgement or because somebody saw it. */
export class Entry {
  readonly partition: Partition;
  readonly offset: number;
  readonly value: string;
  /** Undefined if nobody had sent the value when it was seen. */
  readonly attempt: Attempt | undefined;
  /** The first event that says so. */
  readonly knownAt: number;
  ackedAt: number = NEVER;
  /** First seen by anybody, and by a reader of committed data. */
  polledAt: number = NEVER;
  polledCommittedAt: number = NEVER;
  /** Another value at the same offset: there should be none. */
  rival: Entry | undefined;

  constructor(partition: Partition, offset: number, value: string, attempt: Attempt | undefined, knownAt: number) {
    this.partition = partition;
    this.offset = offset;
    this.value = value;
    this.attempt = attempt;
    this.knownAt = knownAt;
  }

  toString(): string {
    return `${JSON.stringify(this.value)} at ${this.partition}@${this.offset}`;
  }
}

export class Partition {
  readonly topic: Topic;
  readonly partition: number;
  /** By offset. */
  readonly entries: Map<number, Entry> = new Map();

  constructor(topic: Topic, partition: number) {
    this.topic = topic;
    this.partition = partition;
  }

  is({ topic, partition }: Place): boolean {
    return partition === this.partition && topic === this.topic.name;
  }

  /** The entry of the value at the offset, new if it is not known there yet. */
  entry(offset: number, value: string, index: number, attempt: Attempt | undefined): Entry {
    let last: Entry | undefined;
    for (let entry = this.entries.get(offset); entry !== undefined; entry = entry.rival) {
      if (entry.value === value) return entry;
      last = entry;
    }
    const added = new Entry(this, offset, value, attempt, index);
    if (last === undefined) this.entries.set(offset, added);
    else last.rival = added;
    attempt?.entries.push(added);
    return added;
  }

  toString(): string {
    return `${this.topic.name}/${this.partition}`;
  }
}

export class Topic {
  readonly name: string;
  /** By value. */
  readonly attempts: Map<string, Attempt> = new Map();
  readonly partitions: Map<number, Partition> = new Map();

  constructor(name: string) {
    this.name = name;
  }

  partition(number: number): Partition {
    let partition = this.partitions.get(number);
    if (partition === undefined) {
      partition = new Partition(this, number);
      this.partitions.set(number, partition);
    }
    return partition;
  }
}

export class HistoryIndex {
  readonly events: readonly HistoryEvent[];
  readonly topics: Map<string, Topic> = new Map();
  readonly transactions: Map<string, Transaction> = new Map();
  /** By `send`, in the order of the history. */
  readonly attempts: Map<number, Attempt> = new Map();
  readonly #uncommittedReaders = new Set<string>();

  /** @throws Error if the history contradicts itself in what only the test decides, such as a value that is sent twice */
  constructor(events: readonly HistoryEvent[]) {
    this.events = events;
    for (const [index, event] of events.entries()) this.#take(event, index);
  }

  isolationOf(process: string): Isolation {
    return this.#uncommittedReaders.has(process) ? 'read_uncommitted' : 'read_committed';
  }

  place({ topic, partition }: Place): Partition {
    return this.#topic(topic).partition(partition);
  }

  *partitions(): Generator<Partition> {
    for (const topic of this.topics.values()) yield* topic.partitions.values();
  }

  #take(event: HistoryEvent, index: number): void {
    switch (event.kind) {
      case 'send':
        this.#send(event, index);
        return;
      case 'ack':
        this.#ack(event, index);
        return;
      case 'error':
        this.#error(event, index);
        return;
      case 'poll':
        this.#poll(event, index);
        return;
      case 'commit-transaction': {
        const transaction = this.#transaction(event.transaction);
        transaction.commitRequestedAt = Math.min(transaction.commitRequestedAt, index);
        return;
      }
      case 'end-transaction':
        this.#endTransaction(event, index);
        return;
      default:
        return;
    }
  }

  #send(event: SendEvent, index: number): void {
    const topic = this.#topic(event.topic);
    if (topic.attempts.has(event.value)) throw malformed(index, `value ${event.value} is sent a second time`);
    if (this.attempts.has(event.send)) throw malformed(index, `there is a send ${event.send} already`);
    const transaction = event.transaction === undefined ? undefined : this.#transaction(event.transaction);
    const attempt = new Attempt(event, index, transaction);
    topic.attempts.set(event.value, attempt);
    this.attempts.set(event.send, attempt);
  }

  #ack(event: AckEvent, index: number): void {
    const attempt = this.#attempt(event.send, index);
    const { topic, value } = attempt.event;
    const entry = this.#topic(topic).partition(event.partition).entry(event.offset, value, index, attempt);
    entry.ackedAt = Math.min(entry.ackedAt, index);
  }

  #error(event: ErrorEvent, index: number): void {
    const attempt = this.#attempt(event.send, index);
    attempt.failedAt = index;
    attempt.failure = event.outcome;
  }

  #poll(event: PollEvent, index: number): void {
    const committed = event.isolation !== 'read_uncommitted';
    if (!committed) this.#uncommittedReaders.add(event.process);
    for (const record of event.records) {
      const topic = this.#topic(record.topic);
      const attempt = topic.attempts.get(record.value);
      const entry = topic.partition(record.partition).entry(record.offset, record.value, index, attempt);
      entry.polledAt = Math.min(entry.polledAt, index);
      if (!committed) continue;
      entry.polledCommittedAt = Math.min(entry.polledCommittedAt, index);
      if (attempt?.transaction !== undefined) attempt.transaction.seen ??= entry;
    }
  }

  #endTransaction({ transaction: id, result }: EndTransactionEvent, index: number): void {
    const transaction = this.#transaction(id);
    const isDefinite = transaction.result === 'committed' || transaction.result === 'aborted';
    if (isDefinite && result === 'unknown') return;
    if (isDefinite && result !== transaction.result) {
      throw malformed(index, `transaction ${id} was ${transaction.result} before`);
    }
    transaction.result = result;
    transaction.endedAt = index;
  }

  #attempt(send: number, index: number): Attempt {
    const attempt = this.attempts.get(send);
    if (attempt === undefined) throw malformed(index, `there was no send ${send}`);
    return attempt;
  }

  #transaction(id: string): Transaction {
    let transaction = this.transactions.get(id);
    if (transaction === undefined) {
      transaction = new Transaction(id);
      this.transactions.set(id, transaction);
    }
    return transaction;
  }

  #topic(name: string): Topic {
    let topic = this.topics.get(name);
    if (topic === undefined) {
      topic = new Topic(name);
      this.topics.set(name, topic);
    }
    return topic;
  }
}

function malformed(index: number, what: string): Error {
  return new Error(`The history was recorded wrongly: event ${index}: ${what}`);
}
