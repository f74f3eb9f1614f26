/** What a producer knows of one topic: its lanes, and who waits until the broker has described it. */
import type { BufferPool } from '../batch/buffer-pool.js';
import type { LogError } from '../core/errors.js';
import type { Random } from '../core/random.js';
import type { Identities, ProducerIdentity } from './identity.js';
import { Lane } from './lane.js';
import type { TopicMetadata } from './metadata-cache.js';
import { StickyPartition } from './partitioner.js';
import { LaneSequences } from './sequences.js';

/** Who waits for a topic's description. Neither function may throw. */
export interface TopicWaiter {
  readonly known: () => void;
  readonly failed: (error: LogError) => void;
}

/** Invariant: while somebody waits, `isReady` is false, so that nobody overtakes those who wait. */
export class TopicState {
  readonly name: string;
  readonly sticky: StickyPartition;
  /** Undefined until the first lookup. */
  metadata: TopicMetadata | undefined;
  readonly #batchBytes: number;
  readonly #pool: BufferPool;
  readonly #identities: Identities | undefined;
  #lanes: (Lane | undefined)[] = [];
  #waiting: TopicWaiter[] = [];

  /** @param identities undefined without idempotence */
  constructor(name: string, batchBytes: number, pool: BufferPool, random: Random, identities: Identities | undefined) {
    this.name = name;
    this.#batchBytes = batchBytes;
    this.#pool = pool;
    this.#identities = identities;
    this.sticky = new StickyPartition(random);
  }

  /** 0 until the first lookup. */
  get partitionCount(): number {
    return this.metadata?.partitionCount ?? 0;
  }

  /** Whether records can be given a partition right now. */
  get isReady(): boolean {
    return this.metadata !== undefined && !this.metadata.outdated && this.#waiting.length === 0;
  }

  get isWaitedFor(): boolean {
    return this.#waiting.length > 0;
  }

  /** Queues a waiter. @returns whether it is the first, so that a lookup must be started */
  wait(waiter: TopicWaiter): boolean {
    this.#waiting.push(waiter);
    return this.#waiting.length === 1;
  }

  /** The lookup has ended: resumes those who wait, in order of arrival. */
  onKnown(metadata: TopicMetadata): void {
    this.metadata = metadata;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) waiter.known();
  }

  onFailed(error: LogError): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const waiter of waiting) waiter.failed(error);
  }

  /** @param target what the choice of the partition was based on */
  lane(target: TopicMetadata, partition: number): Lane {
    const known = this.#lanes[partition];
    if (known !== undefined) return known;
    const identities = this.#identities;
    const sequences = identities && new LaneSequences(identities.current, identities.transactional);
    const lane = new Lane(target, partition, this.#batchBytes, this.#pool, sequences);
    this.#lanes[partition] = lane;
    return lane;
  }

  /** Another transaction begins: all lanes, which are empty, begin at sequence 0. */
  restart(identity: ProducerIdentity): void {
    for (const lane of this.#lanes) lane?.sequences?.restart(identity);
  }

  /** Whatever comes of what the lanes sent, it is of no interest any more. */
  forgetLanes(): void {
    this.#lanes = [];
  }
}
