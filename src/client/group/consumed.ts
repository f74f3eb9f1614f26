/** Records and batches of a group consumer: they know the assignment under which they were handed out. */
import type { RecordHeader } from '../../batch/builder.js';
import { leaderEpochOf } from '../../batch/layout.js';
import type { FetchedPartition } from '../../rpc/messages.js';
import type { FetchSource } from '../fetch-session.js';
import { type BatchCursor, type OffsetBounds, type ReadRecord, RecordBatch } from '../record-batch.js';
import { deserializeKey, deserializeValue, type Topic } from '../serdes.js';
import type { Holding } from './holding.js';
import type { Progress } from './progress.js';

/** Whose record or batch it is: the assignment, and its progress since the last seek. */
export interface Origin {
  readonly holding: Holding<unknown, unknown>;
  readonly progress: Progress;
}

/** `[from, to)` holds nothing to hand out, as far as was fetched. */
export interface Tail {
  from: number;
  to: number;
}

/** A record as the reader has it, in which the consumer finds where it came from. */
export class ConsumedRecord<K, V> implements ReadRecord<K, V> {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: K | null;
  readonly value: V;
  readonly headers: readonly RecordHeader[];
  readonly #origin: Origin;

  constructor(topic: Topic<K, V>, partition: number, cursor: BatchCursor, origin: Origin) {
    const { offset } = cursor;
    const at = { partition, offset };
    this.topic = topic.name;
    this.partition = partition;
    this.offset = offset;
    this.timestampMs = cursor.timestampMs;
    this.key = deserializeKey(topic, cursor.key, at);
    this.value = deserializeValue(topic, cursor.value, at);
    this.headers = cursor.headers;
    this.#origin = origin;
  }

  /** Undefined for anything that is no record of a consumer. */
  static originOf(record: object): Origin | undefined {
    return #origin in record ? record.#origin : undefined;
  }
}

/** Where the batches of a message came from, and what committing one does. */
export interface BatchOrigin<K, V> extends Origin {
  readonly holding: Holding<K, V>;
  readonly source: FetchSource;
  /** What follows the last of them and holds no records: control batches, and what is not shown. */
  readonly tail: Tail;
  readonly commit: (batch: ConsumedBatch<K, V>) => Promise<void>;
}

/** A record batch of a consumer's `batches()`. */
export class ConsumedBatch<K, V> extends RecordBatch<K, V> {
  readonly #origin: BatchOrigin<K, V>;
  readonly #leaderEpoch: number;

  /** Made by the consumer, of bytes that were checked. */
  constructor(fetched: FetchedPartition, bytes: Buffer, bounds: OffsetBounds, origin: BatchOrigin<K, V>) {
    super(origin.holding.topic, fetched, bytes, bounds);
    this.#origin = origin;
    this.#leaderEpoch = leaderEpochOf(bytes, 0);
  }

  /** For the consumer's own use. */
  static originOf<K, V>(batch: ConsumedBatch<K, V>): BatchOrigin<K, V> {
    return batch.#origin;
  }

  /** For the consumer's own use: where to go on once the batch was handed out. */
  static endOf<K, V>(batch: ConsumedBatch<K, V>): number {
    const { tail } = batch.#origin;
    return batch.nextOffset === tail.from ? tail.to : batch.nextOffset;
  }

  /** For the consumer's own use: the leader epoch under which the batch was written. */
  static leaderEpochOf<K, V>(batch: ConsumedBatch<K, V>): number {
    return batch.#leaderEpoch;
  }

  /**
   * Finishes this batch and commits what is finished without a hole, durably. Does nothing beyond that while something
   * before it is unfinished.
   * @throws LogError as `Consumer.commit`
   */
  commit(): Promise<void> {
    return this.#origin.commit(this);
  }

  override decode(cursor: BatchCursor): ConsumedRecord<K, V> {
    return new ConsumedRecord(this.#origin.holding.topic, this.partition, cursor, this.#origin);
  }
}
