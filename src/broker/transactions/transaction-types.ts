/**
 * What a transactional id is made of. Everything here is immutable: the state machine (`transaction.ts`) makes a new state
 * of an old one, and the coordinator takes it on when what has to be durable for it is.
 */
import { assert } from '../../core/assert.js';
import type { LogError } from '../../core/errors.js';
import type { ProducerIdentity, TransactionPartition, TransactionStatus } from './coordinator-types.js';
import type { GrowingMap } from './growing-map.js';

/**
 * Who aborted a transaction. `producer`: who had begun it; `takeover`: another producer, by initialising itself; `restart`:
 * the broker has stopped before it was decided.
 */
export type AbortCause = 'producer' | 'takeover' | 'timeout' | 'administrator' | 'restart';

/** An open transaction is kept in memory only. */
export type StoredStatus = Exclude<TransactionStatus, 'ongoing'>;

/** What the log keeps of a transactional id. Times of the wall clock, in ms since the epoch. */
export interface StoredTransaction {
  readonly status: StoredStatus;
  /** While a decided transaction is being completed: under which it was sent. Else: for the next one. */
  readonly identity: ProducerIdentity;
  /**
   * What `identity` was before; whoever still has it, because an answer was lost or because its transaction was aborted for
   * it, is told what it is now. Undefined: nobody is.
   */
  readonly previous: ProducerIdentity | undefined;
  /** While a decided transaction is being completed: for the one after it. */
  readonly next: ProducerIdentity | undefined;
  /** Of `prepare-abort` and `complete-abort`. */
  readonly cause: AbortCause | undefined;
  readonly timeoutMs: number;
  /** When the transaction began that is being completed. */
  readonly startMs: number | undefined;
  readonly updateMs: number;
  /** Of the transaction that is being completed. */
  readonly partitions: readonly TransactionPartition[];
  readonly groupIds: readonly string[];
  /** See `TransactionState.suspect`; absent: no. */
  readonly suspect?: boolean | undefined;
}

export interface TransactionState extends Omit<StoredTransaction, 'status' | 'partitions' | 'groupIds' | 'suspect'> {
  readonly transactionalId: string;
  readonly status: TransactionStatus;
  /** Of the transaction that is open or being completed. */
  readonly partitions: GrowingMap<TransactionPartition>;
  readonly groups: GrowingMap<string>;
  /** Of an open transaction, by the monotonic clock, in ms. */
  readonly deadlineMs: number | undefined;
  /**
   * The broker has started anew, and a transaction may have been begun under this identity before, of which not everything
   * that was acknowledged needs to be there any more. So none is begun under it: first it is to be aborted.
   */
  readonly suspect: boolean;
}

export interface TransactionNow {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** What a transaction left open in partitions and groups. */
export interface OpenRemains {
  readonly identity: ProducerIdentity;
  readonly partitions: readonly TransactionPartition[];
  readonly groupIds: readonly string[];
}

/**
 * What happens to a transactional id. `freshProducerId`: one that nobody has had, where `needsProducerId` says so.
 *
 *     init            a producer takes the id, or goes on with it after a failure (`current`); `timeoutMs` is a valid one
 *     enter           a batch of the producer comes to a partition
 *     add-offsets     offsets of a group come
 *     end             the producer commits or aborts
 *     abort           an administrator aborts
 *     tick            time has passed
 *     completed       the markers of a decided transaction are durable in all partitions, and its offsets in all groups
 *     recovered-open  something is open in partitions or groups that the state knows nothing of
 */
export type TransactionEvent =
  | {
      readonly kind: 'init';
      readonly timeoutMs: number;
      readonly current: ProducerIdentity | undefined;
      readonly freshProducerId?: number | undefined;
    }
  | { readonly kind: 'enter'; readonly producer: ProducerIdentity; readonly partition: TransactionPartition }
  | { readonly kind: 'add-offsets'; readonly producer: ProducerIdentity; readonly groupId: string }
  | {
      readonly kind: 'end';
      readonly producer: ProducerIdentity;
      readonly commit: boolean;
      readonly freshProducerId?: number | undefined;
    }
  | { readonly kind: 'abort'; readonly freshProducerId?: number | undefined }
  | { readonly kind: 'tick'; readonly freshProducerId?: number | undefined }
  | { readonly kind: 'completed' }
  | { readonly kind: 'recovered-open'; readonly open: OpenRemains; readonly freshProducerId?: number | undefined };

/**
 * What is to be done, durably: first `flush`, then `persist`, then the others in any order. The new state is taken on when
 * everything up to `persist` is done, and the state stays as it was if that fails. Only the record of `completed` is waited
 * for by nobody: without it the transaction is completed once more after a restart, which changes nothing.
 */
export type TransactionEffect =
  /** What the partitions hold by now. */
  | { readonly kind: 'flush'; readonly partitions: readonly TransactionPartition[] }
  | { readonly kind: 'persist'; readonly transactionalId: string; readonly record: StoredTransaction }
  /** A marker in each of the partitions; `producerEpoch` is the marker's. */
  | ({
      readonly kind: 'markers';
      readonly partitions: readonly TransactionPartition[];
      readonly commit: boolean;
    } & ProducerIdentity)
  /** The offsets that were added under `producerEpoch`, in each of the groups. */
  | ({
      readonly kind: 'end-offsets';
      readonly groupIds: readonly string[];
      readonly commit: boolean;
    } & ProducerIdentity);

/**
 * What the caller is told when the effects up to `persist` are done.
 *
 *     answered  the identity that the producer has from here on
 *     accepted  the partition or group is part of the transaction
 *     refused   nothing has changed
 *     waits     the event is to be applied again when the transaction is completed
 *     nothing   there was nothing to do
 */
export type TransactionOutcome =
  | { readonly kind: 'answered'; readonly identity: ProducerIdentity }
  | { readonly kind: 'accepted' }
  | { readonly kind: 'refused'; readonly error: LogError }
  | { readonly kind: 'waits' }
  | { readonly kind: 'nothing' };

export interface TransactionTransition {
  readonly state: TransactionState;
  readonly outcome: TransactionOutcome;
  readonly effects: readonly TransactionEffect[];
}

/** Of a producer id that was never given out. */
export const NO_PRODUCER: ProducerIdentity = { producerId: -1, producerEpoch: -1 };

/** The highest epoch of a batch; the one above it is for the marker, and the next transaction has another producer id. */
export const LAST_EPOCH = 32_766;

/** In one transaction. */
export const MAX_PARTITIONS = 10_000;
export const MAX_GROUPS = 1_000;

export function isSameIdentity(a: ProducerIdentity, b: ProducerIdentity | undefined): boolean {
  return a.producerId === b?.producerId && a.producerEpoch === b.producerEpoch;
}

/** @param freshProducerId for one without epochs left */
export function identityAfter(identity: ProducerIdentity, freshProducerId: number | undefined): ProducerIdentity {
  const { producerId, producerEpoch } = identity;
  if (producerId >= 0 && producerEpoch < LAST_EPOCH) return { producerId, producerEpoch: producerEpoch + 1 };
  assert(freshProducerId !== undefined, 'a producer id without epochs left is followed by a fresh one');
  return { producerId: freshProducerId, producerEpoch: 0 };
}

/**
 * Whether the producer has the identity after the decided transaction already: that was completed before the broker
 * stopped, and is completed once more. Whoever took over is given another one.
 */
export function isOfNext({ next, cause }: TransactionState, producer: ProducerIdentity): boolean {
  return cause !== 'takeover' && isSameIdentity(producer, next);
}

/** Whether the transaction was aborted over its producer's head, which therefore is to be told. */
export function isForeign(cause: AbortCause | undefined): cause is AbortCause {
  return cause === 'timeout' || cause === 'administrator' || cause === 'restart';
}

/** Key of a partition within a transaction. */
export function partitionKeyOf({ topicId, partition }: TransactionPartition): string {
  return `${topicId}-${partition}`;
}

/** The event with a fresh producer id for what may need one. */
export function withProducerId(event: TransactionEvent, freshProducerId: number | undefined): TransactionEvent {
  if (event.kind === 'enter' || event.kind === 'add-offsets' || event.kind === 'completed') return event;
  return { ...event, freshProducerId };
}
