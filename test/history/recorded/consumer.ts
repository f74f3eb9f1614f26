/** A member of a group that writes down in a history what it is given, handed, and has done. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsumedBatch, Consumer, ReadRecord, TopicPartition } from '../../../src/index.js';
import { LogError } from '../../../src/index.js';
import type { Position } from '../events.js';
import { type EventLog, nowUs } from '../timed-history.js';

/**
 * How a member takes records, and how the group learns what is finished: `auto` one by one with commits on a timer,
 * `commits` one by one with a commit each, `batches` with a commit each, `keys` several at once in the order of their keys
 * with commits on a timer, `unordered` several at once with a commit each.
 */
export type Handling = 'auto' | 'commits' | 'batches' | 'keys' | 'unordered';

export const HANDLINGS: readonly Handling[] = ['auto', 'commits', 'batches', 'keys', 'unordered'];

/** Handlers at once of `keys` and `unordered`. */
const CONCURRENCY = 8;

/** Whether the group of a member with this handling commits by itself. */
export function commitsByItself(handling: Handling): boolean {
  return handling === 'auto' || handling === 'keys';
}

function isUnordered(handling: Handling): boolean {
  return handling === 'keys' || handling === 'unordered';
}

export interface RecordedMemberOptions {
  /** The consumer's name in the history. */
  readonly process: string;
  readonly group: string;
  readonly handling: Handling;
  /** How long the handling of a record takes, in ms; asked for each. */
  readonly handleMs: () => number;
}

interface Unread {
  readonly assignedUs: number;
  /** Where that begins, if it is known already. */
  readonly offset: number | undefined;
}

type TextRecord = ReadRecord<string, string>;

/** A consumer from its start to its end: a process of the history. */
export class RecordedMember {
  readonly #consumer: Consumer<string, string>;
  readonly #log: EventLog;
  readonly #options: RecordedMemberOptions;
  /** Assigned, and not read yet. */
  readonly #unread = new Map<string, Unread>();
  /** By partition: records that are being handled. */
  readonly #inHand = new Map<string, number>();
  #broken: Error | undefined;
  /** By partition: when a record of it was handed out last. */
  readonly #lastUs = new Map<string, number>();

  constructor(consumer: Consumer<string, string>, log: EventLog, options: RecordedMemberOptions) {
    this.#consumer = consumer;
    this.#log = log;
    this.#options = options;
    consumer.on('assigned', (partitions) => this.#assigned(partitions));
    consumer.on('revoked', (partitions) => this.#revoked(partitions));
    consumer.on('lost', (partitions) => this.#lost(partitions));
  }

  /**
   * Goes on until the consumer is closed, or its signal aborts.
   * @throws LogError when it may not go on; Error when a partition was given up while a record of it was being handled
   */
  async run(): Promise<void> {
    try {
      await this.#consume();
    } catch (error) {
      if (!(error instanceof LogError) || (error.reason !== 'CANCELLED' && error.reason !== 'CLOSED')) throw error;
    }
    if (this.#broken !== undefined) throw this.#broken;
  }

  async #consume(): Promise<void> {
    const consumer = this.#consumer;
    switch (this.#options.handling) {
      case 'auto':
        for await (const record of consumer) await this.#handle([record]);
        return;
      case 'commits':
        for await (const record of consumer) {
          await this.#handle([record]);
          if (await this.#passed(() => consumer.commit(record))) this.#committed(record, record.offset + 1);
        }
        return;
      case 'batches':
        for await (const batch of consumer.batches()) await this.#handleBatch(batch);
        return;
      case 'keys':
        return await consumer.run((record) => this.#handle([record]), {
          concurrency: CONCURRENCY,
          orderedBy: 'key',
        });
      case 'unordered':
        // How far a commit has come is not known here: no further than to the first record that is not finished.
        return await consumer.run(
          async (record) => {
            await this.#handle([record]);
            await this.#passed(() => consumer.commit(record));
          },
          { concurrency: CONCURRENCY, orderedBy: 'none' },
        );
    }
  }

  async #handleBatch(batch: ConsumedBatch<string, string>): Promise<void> {
    const handedOutUs = nowUs();
    await this.#handle(await batch.records(), handedOutUs);
    if (await this.#passed(() => batch.commit())) this.#committed(batch, batch.nextOffset);
  }

  async #handle(records: readonly TextRecord[], handedOutUs: number = nowUs()): Promise<void> {
    const { process, handleMs } = this.#options;
    const places = records.map(({ topic, partition, offset }): Position => ({ topic, partition, offset }));
    const seen = records.map(({ value }, i) => ({ ...places[i]!, value: textOf(value) }));
    for (const place of places) this.#begin(place);
    this.#log.add({ kind: 'poll', process, records: seen, unordered: this.#isUnordered }, handedOutUs);
    for (const place of places) this.#lastUs.set(keyOf(place), handedOutUs);
    this.#take(places, 1);
    const ms = handleMs();
    if (ms > 0) await sleep(ms);
    this.#log.add({ kind: 'finish', process, records: places });
    this.#take(places, -1);
  }

  #take(places: readonly Position[], change: 1 | -1): void {
    for (const place of places) this.#inHand.set(keyOf(place), (this.#inHand.get(keyOf(place)) ?? 0) + change);
  }

  /**
   * Commits until it passes, for nothing else would commit the last record of a partition.
   * @returns whether it passed; not if the partition is gone
   * @throws LogError when it had no reason to fail
   */
  async #passed(commit: () => Promise<void>): Promise<boolean> {
    for (;;) {
      try {
        await commit();
        return true;
      } catch (error) {
        if (!(error instanceof LogError)) throw error;
        if (ENDS_COMMITS.has(error.reason)) return false;
        if (!error.retryable && error.reason !== 'REQUEST_TIMED_OUT') throw error;
      }
    }
  }

  #committed({ topic, partition }: TopicPartition, offset: number): void {
    const { process, group } = this.#options;
    this.#log.add({ kind: 'commit', process, group, positions: [{ topic, partition, offset }] });
  }

  /** Where the consumer begins is to be seen by the first record that it hands out, if these come in order. */
  async #assigned(partitions: readonly TopicPartition[]): Promise<void> {
    const assignedUs = nowUs();
    for (const partition of partitions) this.#unread.set(keyOf(partition), { assignedUs, offset: undefined });
    if (!this.#isUnordered) return;
    for (const { offset = 0, ...at } of await this.#consumer.committed(partitions)) {
      this.#unread.set(keyOf(at), { assignedUs, offset });
    }
  }

  /** Written down with its first record, for without one it is not to be known whether it still had the partition. */
  #begin({ offset: first, ...place }: Position): void {
    const key = keyOf(place);
    const unread = this.#unread.get(key);
    if (unread === undefined) return;
    this.#unread.delete(key);
    const { process, group } = this.#options;
    const positions = [{ ...place, offset: unread.offset ?? first }];
    this.#log.add({ kind: 'assign', process, group, positions }, unread.assignedUs);
  }

  get #isUnordered(): boolean {
    return isUnordered(this.#options.handling);
  }

  #revoked(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const { topic, partition: number } = partition;
      const inHand = this.#inHand.get(keyOf(partition)) ?? 0;
      if (inHand > 0) this.#broken = new Error(`${topic}/${number} is given up with ${inHand} records of it in hand`);
      this.#end(partition, nowUs());
    }
  }

  /** When they went is not known: when the member acted on them last is. */
  #lost(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) this.#end(partition, this.#lastUs.get(keyOf(partition)) ?? nowUs());
  }

  #end({ topic, partition }: TopicPartition, atUs: number): void {
    const place = { topic, partition };
    const wasRead = !this.#unread.delete(keyOf(place));
    if (wasRead) this.#log.add({ kind: 'revoke', process: this.#options.process, places: [place] }, atUs);
  }
}

/** With these a commit fails whose partition went to another member, or whose consumer was closed. */
const ENDS_COMMITS: ReadonlySet<string> = new Set(['FENCED_MEMBER_EPOCH', 'UNKNOWN_MEMBER_ID', 'CLOSED', 'CANCELLED']);

const FILLER = '.';

/** A value without what fills it up. */
function textOf(value: string): string {
  const end = value.indexOf(FILLER);
  return end < 0 ? value : value.slice(0, end);
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}
