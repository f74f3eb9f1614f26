/** Records into open batches, open batches into sealed ones. */
import type { RecordHeader } from '../batch/builder.js';
import { NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE } from '../batch/layout.js';
import { assert } from '../core/assert.js';
import { toLogError } from '../core/errors.js';
import type { ByteGate } from './byte-gate.js';
import type { Completion, SendManyCall } from './completions.js';
import type { Lane } from './lane.js';
import type { TopicMetadata } from './metadata-cache.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import { ProducerBatch, seal } from './producer-batch.js';
import type { Sender } from './sender.js';

export interface AccumulatorContext {
  readonly runtime: ClientRuntime;
  readonly options: ResolvedProducerOptions;
  readonly gate: ByteGate;
  readonly sender: Sender;
  /** The lane's open batch was sealed. */
  readonly onSealed: (lane: Lane) => void;
  /** Asks for a call of `sealDue` at this time of the monotonic clock. */
  readonly wakeAt: (atMs: number) => void;
}

/** Invariant: `#openLanes` are the lanes whose builder holds records, in the order in which their batches were opened. */
export class Accumulator {
  readonly #context: AccumulatorContext;
  readonly #openLanes = new Set<Lane>();
  #nextOrdinal = 0;
  #lingerMs: number;
  #sealScheduled = false;

  constructor(context: AccumulatorContext) {
    this.#context = context;
    this.#lingerMs = context.options.lingerMs;
  }

  get isEmpty(): boolean {
    return this.#openLanes.size === 0;
  }

  /**
   * Copies one record into the lane's open batch, sealing the batch before it when there is no room left.
   * @param target what the choice of the partition was based on
   * @returns bytes that the record took
   */
  append(
    lane: Lane,
    target: TopicMetadata,
    timestampMs: number,
    key: Uint8Array | null,
    value: Uint8Array | null,
    headers: readonly RecordHeader[] | undefined,
    waiter: Completion | SendManyCall,
  ): number {
    const { builder } = lane;
    if (lane.target !== target) this.#aim(lane, target);
    let before = builder.recordCount === 0 ? 0 : builder.sizeInBytes;
    if (!lane.tryAppend(timestampMs, key, value, headers, waiter)) {
      this.#seal(lane);
      before = 0;
      const fits = lane.tryAppend(timestampMs, key, value, headers, waiter);
      assert(fits, 'an empty batch takes any record');
    }
    const bytes = builder.sizeInBytes - before;
    this.#context.gate.charge(bytes);
    if (builder.sizeInBytes >= this.#context.options.batchBytes) this.#seal(lane);
    else if (before === 0) this.#opened(lane);
    return bytes;
  }

  /** Seals what has lingered long enough. Returns when to be called next; Infinity for never. */
  sealDue(nowMs: number): number {
    for (const lane of [...this.#openLanes]) {
      const dueAtMs = lane.openedAtMs + this.#lingerMs;
      if (dueAtMs > nowMs) return dueAtMs;
      this.#seal(lane);
    }
    return Number.POSITIVE_INFINITY;
  }

  sealAll(): void {
    for (const lane of [...this.#openLanes]) this.#seal(lane);
  }

  /** Seals what is open, and from now on every batch at the end of the tick that opened it. */
  stopLingering(): void {
    this.#lingerMs = 0;
    this.sealAll();
  }

  /** A batch goes to one topic id, and its records were placed by one number of partitions: else they are not mixed. */
  #aim(lane: Lane, target: TopicMetadata): void {
    const { topicId, partitionCount } = lane.target;
    const same = topicId === target.topicId && partitionCount === target.partitionCount;
    if (!same && lane.builder.recordCount > 0) this.#seal(lane);
    lane.target = target;
  }

  #opened(lane: Lane): void {
    this.#openLanes.add(lane);
    if (this.#lingerMs > 0) {
      lane.openedAtMs = this.#context.runtime.clock.monotonic();
      this.#context.wakeAt(lane.openedAtMs + this.#lingerMs);
      return;
    }
    if (this.#sealScheduled) return;
    this.#sealScheduled = true;
    // Whatever is sent in the same tick shares a batch.
    setImmediate(() => {
      this.#sealScheduled = false;
      this.sealAll();
    });
  }

  #seal(lane: Lane): void {
    this.#openLanes.delete(lane);
    const { runtime, options, sender } = this.#context;
    const { recordCount, sizeInBytes } = lane.builder;
    const { sequences } = lane;
    const firstSequence = sequences?.seal(recordCount) ?? NO_SEQUENCE;
    const identity = sequences?.identity;
    const transactional = sequences?.transactional ?? false;
    const encoded = lane.builder.build({
      producerId: identity?.producerId ?? NO_PRODUCER_ID,
      producerEpoch: identity?.producerEpoch ?? NO_PRODUCER_EPOCH,
      baseSequence: firstSequence,
      transactional,
    });
    const compressed = options.compression !== 'none';
    const origin = {
      target: lane.target,
      partition: lane.partition,
      sealedAtMs: runtime.clock.monotonic(),
      ordinal: this.#nextOrdinal++,
      identity,
      firstSequence,
      transactional,
    };
    const completions = lane.takeCompletions();
    const batch = new ProducerBatch(origin, recordCount, completions, sizeInBytes, compressed ? undefined : encoded);
    sender.add(lane, batch);
    if (compressed) {
      seal(encoded, options.compression).then(
        (bytes) => sender.onCompressed(lane, batch, bytes),
        (error) => sender.onCompressed(lane, batch, toLogError(error)),
      );
    }
    this.#context.onSealed(lane);
  }
}
