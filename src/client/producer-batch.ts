/** A sealed batch on its way to the broker. */
import { BatchBuilder } from '../batch/builder.js';
import { compressBatch } from '../batch/compression.js';
import { type Codec, isNumbered, NO_SEQUENCE, setProducer } from '../batch/layout.js';
import { openRecords } from '../batch/records.js';
import { assert } from '../core/assert.js';
import { LogError } from '../core/errors.js';
import { type BatchAck, type Completion, splitCompletions } from './completions.js';
import type { ProducerIdentity } from './identity.js';
import type { TopicMetadata } from './metadata-cache.js';
import { addSequence } from './sequences.js';

/** What a batch takes over from the lane or the batch that it comes from. */
export type BatchOrigin = Pick<
  ProducerBatch,
  'target' | 'partition' | 'sealedAtMs' | 'ordinal' | 'identity' | 'firstSequence' | 'transactional'
>;

/**
 * Invariants: settled exactly once, by `succeed`, `fail` or being split; the completions' counts sum up to
 * `recordCount`. Once settled it is never sent again.
 */
export class ProducerBatch {
  readonly topic: string;
  readonly partition: number;
  /** The topic as it was known when its records were given their partition, or as a recreated one is known since. */
  target: TopicMetadata;
  readonly recordCount: number;
  readonly completions: readonly Completion[];
  /** What this batch holds of the producer's buffer, in bytes. */
  readonly chargedBytes: number;
  /** When it was sealed, by the monotonic clock: the delivery timeout counts from here, across retries and splits. */
  readonly sealedAtMs: number;
  /** Order of sealing within the producer; the parts of a split batch share it. */
  readonly ordinal: number;
  /** Under which it is numbered; undefined without idempotence. */
  identity: ProducerIdentity | undefined;
  /** The number of its first record; -1 without idempotence. */
  firstSequence: number;
  readonly transactional: boolean;
  /** The record batch as it goes over the wire; undefined while it is being compressed. */
  bytes: Buffer | undefined;
  /** The broker's answer to the current attempt. */
  ack: BatchAck | undefined;
  error: LogError | undefined;
  /** Why the last attempt failed, for the message when time is over. */
  lastError: LogError | undefined;
  /** Whether it was sent and not answered yet. */
  inFlight = false;
  /** Whether an attempt whose outcome is unknown was made. */
  maybeWritten = false;
  settled = false;

  constructor(
    origin: BatchOrigin,
    recordCount: number,
    completions: readonly Completion[],
    chargedBytes: number,
    bytes: Buffer | undefined,
  ) {
    this.topic = origin.target.name;
    this.target = origin.target;
    this.partition = origin.partition;
    this.sealedAtMs = origin.sealedAtMs;
    this.ordinal = origin.ordinal;
    this.identity = origin.identity;
    this.firstSequence = origin.firstSequence;
    this.transactional = origin.transactional;
    this.recordCount = recordCount;
    this.completions = completions;
    this.chargedBytes = chargedBytes;
    this.bytes = bytes;
  }

  /** The number of the record behind its last one. */
  get nextSequence(): number {
    return addSequence(this.firstSequence, this.recordCount);
  }

  /**
   * The bytes to send: what was built, unless the batch was numbered anew since. Then it is a copy, because the old bytes
   * may still stand in a stream's queue.
   */
  numberedBytes(): Buffer {
    assert(this.bytes !== undefined, 'only a ready batch is sent');
    const { identity, firstSequence } = this;
    if (identity === undefined) return this.bytes;
    const { producerId, producerEpoch } = identity;
    if (!isNumbered(this.bytes, 0, producerId, producerEpoch, firstSequence)) {
      this.bytes = Buffer.from(this.bytes);
      setProducer(this.bytes, 0, producerId, producerEpoch, firstSequence);
    }
    return this.bytes;
  }

  /** Whether no answer is awaited. */
  get answered(): boolean {
    return this.ack !== undefined || this.error !== undefined || !this.inFlight;
  }

  /** Resolves the promises of all its records, in order. */
  succeed(ack: BatchAck): void {
    assert(!this.settled, 'a batch is settled once');
    this.settled = true;
    let offset = ack.baseOffset;
    for (const completion of this.completions) {
      completion.succeed(ack, offset);
      if (offset >= 0) offset += completion.count;
    }
    this.bytes = undefined;
  }

  fail(error: LogError): void {
    assert(!this.settled, 'a batch is settled once');
    this.settled = true;
    for (const completion of this.completions) completion.fail(error);
    this.bytes = undefined;
  }

  /**
   * An attempt has failed, and may be repeated.
   * @param isFollower whether a batch before it on the same stream was refused: then this one was not written
   */
  noteFailure(error: LogError, isFollower: boolean): void {
    this.lastError = error;
    if (error.outcome === 'unknown' && !isFollower) this.maybeWritten = true;
  }

  /** `error` with what is known about whether this batch may have been written. */
  withOutcome(error: LogError): LogError {
    const outcome = this.maybeWritten || this.inFlight ? 'unknown' : 'none';
    if (error.outcome === outcome) return error;
    return new LogError(error.reason, error.message, { metadata: error.metadata, cause: error.cause, outcome });
  }

  /**
   * Two batches with the records of this one, half of them each, for a broker that found it too large. They take over
   * its completions, its share of the buffer and its numbers.
   * @throws LogError when the records cannot be read back or compressed
   */
  async split(codec: Codec): Promise<[ProducerBatch, ProducerBatch]> {
    assert(this.bytes !== undefined && this.recordCount > 1, 'only a ready batch of several records is split');
    const firstCount = this.recordCount >>> 1;
    const secondSequence = this.identity === undefined ? NO_SEQUENCE : addSequence(this.firstSequence, firstCount);
    const [first, second] = await this.#reencode(this.bytes, firstCount, secondSequence, codec);
    const [firstCompletions, secondCompletions] = splitCompletions(this.completions, firstCount);
    const firstCharge = Math.floor((this.chargedBytes * firstCount) / this.recordCount);
    return [
      new ProducerBatch(this, firstCount, firstCompletions, firstCharge, first),
      new ProducerBatch(
        this.#from(secondSequence),
        this.recordCount - firstCount,
        secondCompletions,
        this.chargedBytes - firstCharge,
        second,
      ),
    ];
  }

  /** This batch as the origin of one that begins with another of its records. */
  #from(firstSequence: number): BatchOrigin {
    const { target, partition, sealedAtMs, ordinal, identity, transactional } = this;
    return { target, partition, sealedAtMs, ordinal, identity, transactional, firstSequence };
  }

  async #reencode(bytes: Buffer, firstCount: number, second: number, codec: Codec): Promise<[Buffer, Buffer]> {
    const cursor = await openRecords(bytes);
    const builder = new BatchBuilder(Number.MAX_SAFE_INTEGER, bytes.length);
    const encode = (count: number, baseSequence: number): Promise<Buffer> => {
      for (let i = 0; i < count && cursor.next(); i++) {
        builder.tryAppend(cursor.timestampMs, cursor.key, cursor.value, cursor.headers);
      }
      const { identity, transactional } = this;
      return seal(builder.build({ ...identity, baseSequence, transactional }), codec);
    };
    return [await encode(firstCount, this.firstSequence), await encode(this.recordCount - firstCount, second)];
  }
}

/** The batch as it goes over the wire. */
export async function seal(batch: Buffer, codec: Codec): Promise<Buffer> {
  return codec === 'none' ? batch : compressBatch(batch, codec);
}
