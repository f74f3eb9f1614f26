/** The state machine of one transactional id. Pure: no I/O, no timers, no clock. */
import { assert } from '../../core/assert.js';
import type { LogError } from '../../core/errors.js';
import type { ProducerIdentity } from './coordinator-types.js';
import { GrowingMap } from './growing-map.js';
import {
  concurrentTransactions,
  endedOtherwise,
  noneOpen,
  nothingToCommit,
  otherProducerId,
  producerFenced,
  tooManyGroups,
  tooManyPartitions,
  transactionAborted,
} from './transaction-errors.js';
import {
  type AbortCause,
  identityAfter,
  isForeign,
  isOfNext,
  isSameIdentity,
  LAST_EPOCH,
  MAX_GROUPS,
  MAX_PARTITIONS,
  NO_PRODUCER,
  type OpenRemains,
  partitionKeyOf,
  type StoredStatus,
  type StoredTransaction,
  type TransactionEffect,
  type TransactionEvent,
  type TransactionNow,
  type TransactionOutcome,
  type TransactionState,
  type TransactionTransition,
} from './transaction-types.js';

type Event<K extends TransactionEvent['kind']> = Extract<TransactionEvent, { kind: K }>;

const WAITS: TransactionOutcome = { kind: 'waits' };
const ACCEPTED: TransactionOutcome = { kind: 'accepted' };
const NOTHING: TransactionOutcome = { kind: 'nothing' };

/** A transactional id that nobody has initialised. */
export function newTransaction(transactionalId: string): TransactionState {
  return {
    transactionalId,
    status: 'empty',
    identity: NO_PRODUCER,
    previous: undefined,
    next: undefined,
    cause: undefined,
    timeoutMs: 0,
    startMs: undefined,
    updateMs: 0,
    partitions: GrowingMap.empty(),
    groups: GrowingMap.empty(),
    deadlineMs: undefined,
    suspect: false,
  };
}

/**
 * @param suspect whether something that partitions or groups had acknowledged may be missing after the restart, or cannot be
 *   looked for
 */
export function restoreTransaction(
  transactionalId: string,
  stored: StoredTransaction,
  suspect: boolean,
): TransactionState {
  const { partitions, groupIds, ...rest } = stored;
  return {
    ...rest,
    transactionalId,
    partitions: GrowingMap.of(partitions.map((partition) => [partitionKeyOf(partition), partition])),
    groups: GrowingMap.of(groupIds.map((groupId) => [groupId, groupId])),
    deadlineMs: undefined,
    suspect: suspect || stored.suspect === true,
  };
}

export function isNew({ identity }: TransactionState): boolean {
  return isSameIdentity(identity, NO_PRODUCER);
}

/** Decided, and not completed. */
export function isPrepared({ status }: TransactionState): boolean {
  return status === 'prepare-commit' || status === 'prepare-abort';
}

/** When a tick is next of use, by the monotonic clock. */
export function nextDeadlineMs({ status, deadlineMs }: TransactionState): number | undefined {
  return status === 'ongoing' ? deadlineMs : undefined;
}

/** Whether the event has to bring a fresh producer id along. */
export function needsProducerId(state: TransactionState, event: TransactionEvent): boolean {
  if (event.kind === 'enter' || event.kind === 'add-offsets' || event.kind === 'completed') return false;
  if (isPrepared(state)) return false;
  const epoch = event.kind === 'recovered-open' ? event.open.identity.producerEpoch : state.identity.producerEpoch;
  return isNew(state) || Math.max(epoch, state.identity.producerEpoch) >= LAST_EPOCH;
}

export function transition(
  state: TransactionState,
  event: TransactionEvent,
  now: TransactionNow,
): TransactionTransition {
  switch (event.kind) {
    case 'init':
      return init(state, event, now);
    case 'enter':
      return enter(state, event, now);
    case 'add-offsets':
      return addOffsets(state, event, now);
    case 'end':
      return end(state, event, now);
    case 'abort':
      return abort(state, event, now);
    case 'tick':
      return tick(state, event, now);
    case 'completed':
      return completed(state, now);
    case 'recovered-open':
      return recoveredOpen(state, event, now);
  }
}

/** What a decided transaction still needs; for one that was read from the log, too. */
export function completionEffects(state: TransactionState): readonly TransactionEffect[] {
  const { identity, status, partitions, groups } = state;
  const { producerId, producerEpoch } = identity;
  const commit = status === 'prepare-commit';
  return [
    { kind: 'markers', partitions: [...partitions.values()], commit, producerId, producerEpoch: producerEpoch + 1 },
    { kind: 'end-offsets', groupIds: [...groups.values()], commit, producerId, producerEpoch },
  ];
}

function unchanged(state: TransactionState, outcome: TransactionOutcome): TransactionTransition {
  return { state, outcome, effects: [] };
}

function refused(state: TransactionState, error: LogError): TransactionTransition {
  return unchanged(state, { kind: 'refused', error });
}

function persisting(state: TransactionState, outcome: TransactionOutcome): TransactionTransition {
  return { state, outcome, effects: [persist(state)] };
}

/** @param state not with an open transaction */
export function recordOf(state: TransactionState): StoredTransaction {
  const { status, identity, previous, next, cause, timeoutMs, startMs, updateMs, partitions, groups, suspect } = state;
  assert(status !== 'ongoing', 'an open transaction has no record');
  return {
    status,
    identity,
    previous,
    next,
    cause,
    timeoutMs,
    startMs,
    updateMs,
    partitions: [...partitions.values()],
    groupIds: [...groups.values()],
    suspect: suspect || undefined,
  };
}

function persist(state: TransactionState): TransactionEffect {
  return { kind: 'persist', transactionalId: state.transactionalId, record: recordOf(state) };
}

/** The state between two transactions, under another identity. */
function between(
  state: TransactionState,
  status: StoredStatus,
  change: Pick<TransactionState, 'identity' | 'previous' | 'cause'>,
  now: TransactionNow,
): TransactionState {
  return {
    ...newTransaction(state.transactionalId),
    status,
    ...change,
    timeoutMs: state.timeoutMs,
    updateMs: now.wallMs,
  };
}

/** Decides the transaction; `completed` follows when what is to be done for it is done. */
function prepared(
  state: TransactionState,
  cause: AbortCause | undefined,
  freshProducerId: number | undefined,
  now: TransactionNow,
): TransactionTransition {
  const status = cause === undefined ? 'prepare-commit' : 'prepare-abort';
  const next = identityAfter(state.identity, freshProducerId);
  const after: TransactionState = {
    ...state,
    status,
    cause,
    next,
    previous: undefined,
    deadlineMs: undefined,
    updateMs: now.wallMs,
    suspect: false,
  };
  const flush: TransactionEffect[] =
    cause === undefined ? [{ kind: 'flush', partitions: [...state.partitions.values()] }] : [];
  return { state: after, outcome: WAITS, effects: [...flush, persist(after), ...completionEffects(after)] };
}

function init(state: TransactionState, event: Event<'init'>, now: TransactionNow): TransactionTransition {
  const { current, timeoutMs, freshProducerId } = event;
  if (isNew(state) || current === undefined) return takeOver(state, event, now);
  const { identity, previous } = state;
  if (isSameIdentity(current, identity)) {
    if (state.status === 'ongoing') return prepared(state, 'producer', freshProducerId, now);
    if (state.cause === 'takeover' && isPrepared(state)) return refused(state, producerFenced(state, current));
    if (isPrepared(state)) return unchanged(state, WAITS);
    const change = { identity: identityAfter(identity, freshProducerId), previous: current, cause: undefined };
    return answered({ ...between(state, 'empty', change, now), timeoutMs });
  }
  if (isOfNext(state, current)) return unchanged(state, WAITS);
  if (!isSameIdentity(current, previous)) return refused(state, producerFenced(state, current));
  // An answer was lost, or what was open has just been aborted.
  if (state.timeoutMs !== timeoutMs) return answered({ ...state, timeoutMs, updateMs: now.wallMs });
  return unchanged(state, { kind: 'answered', identity });
}

function takeOver(state: TransactionState, event: Event<'init'>, now: TransactionNow): TransactionTransition {
  const { timeoutMs, freshProducerId } = event;
  if (state.status === 'ongoing') return prepared(state, 'takeover', freshProducerId, now);
  if (isPrepared(state)) return unchanged(state, WAITS);
  const change = { identity: identityAfter(state.identity, freshProducerId), previous: undefined, cause: undefined };
  return answered({ ...between(state, 'empty', change, now), timeoutMs });
}

function answered(state: TransactionState): TransactionTransition {
  return persisting(state, { kind: 'answered', identity: state.identity });
}

/** Why the producer cannot add anything, if so. */
function addRefusal(state: TransactionState, producer: ProducerIdentity): LogError | undefined {
  const { transactionalId, status, identity, previous, cause } = state;
  if (isSameIdentity(producer, identity) && !isNew(state)) {
    if (status === 'ongoing') return undefined;
    if (isPrepared(state)) return preparedRefusal(state, producer);
    return state.suspect ? transactionAborted(transactionalId, producer, 'restart') : undefined;
  }
  // Told before a restart that has lost the record of the completion.
  if (isOfNext(state, producer)) return concurrentTransactions(transactionalId, producer);
  if (isSameIdentity(producer, previous) && status === 'complete-abort' && isForeign(cause)) {
    return transactionAborted(transactionalId, producer, cause);
  }
  return staleRefusal(state, producer);
}

/** Of who had begun the transaction that is being completed. */
function preparedRefusal(state: TransactionState, producer: ProducerIdentity): LogError {
  const { transactionalId, cause } = state;
  if (cause === 'takeover') return producerFenced(state, producer);
  if (isForeign(cause)) return transactionAborted(transactionalId, producer, cause);
  return concurrentTransactions(transactionalId, producer);
}

/** Of who is not the producer of this id. */
function staleRefusal(state: TransactionState, producer: ProducerIdentity): LogError {
  const { transactionalId, identity, previous } = state;
  const isKnown = producer.producerId === identity.producerId || producer.producerId === previous?.producerId;
  return isKnown && !isNew(state) ? producerFenced(state, producer) : otherProducerId(transactionalId, producer);
}

function begun(state: TransactionState, now: TransactionNow): TransactionState {
  if (state.status === 'ongoing') return state;
  return {
    ...state,
    status: 'ongoing',
    previous: undefined,
    cause: undefined,
    startMs: now.wallMs,
    updateMs: now.wallMs,
    deadlineMs: now.monotonicMs + state.timeoutMs,
  };
}

function enter(state: TransactionState, event: Event<'enter'>, now: TransactionNow): TransactionTransition {
  const { producer, partition } = event;
  const refusal = addRefusal(state, producer);
  if (refusal !== undefined) return refused(state, refusal);
  const key = partitionKeyOf(partition);
  if (state.partitions.has(key)) return unchanged(state, ACCEPTED);
  if (state.partitions.size >= MAX_PARTITIONS) return refused(state, tooManyPartitions(state));
  return unchanged({ ...begun(state, now), partitions: state.partitions.with(key, partition) }, ACCEPTED);
}

function addOffsets(state: TransactionState, event: Event<'add-offsets'>, now: TransactionNow): TransactionTransition {
  const { producer, groupId } = event;
  const refusal = addRefusal(state, producer);
  if (refusal !== undefined) return refused(state, refusal);
  if (state.groups.has(groupId)) return unchanged(state, ACCEPTED);
  if (state.groups.size >= MAX_GROUPS) return refused(state, tooManyGroups(state));
  return unchanged({ ...begun(state, now), groups: state.groups.with(groupId, groupId) }, ACCEPTED);
}

function end(state: TransactionState, event: Event<'end'>, now: TransactionNow): TransactionTransition {
  const { producer, commit } = event;
  if (isSameIdentity(producer, state.identity) && !isNew(state)) return endCurrent(state, event, now);
  const { status, identity, previous, cause, transactionalId } = state;
  if (isOfNext(state, producer)) return unchanged(state, WAITS);
  const isCompleted = status === 'complete-commit' || status === 'complete-abort';
  if (!isCompleted || !isSameIdentity(producer, previous)) return refused(state, staleRefusal(state, producer));
  const committed = status === 'complete-commit';
  if (commit === committed) return unchanged(state, { kind: 'answered', identity });
  if (isForeign(cause)) return refused(state, transactionAborted(transactionalId, producer, cause));
  return refused(state, endedOtherwise(state, producer, committed));
}

function endCurrent(state: TransactionState, event: Event<'end'>, now: TransactionNow): TransactionTransition {
  const { producer, commit, freshProducerId } = event;
  const { transactionalId, status, identity, cause } = state;
  if (status === 'ongoing') return prepared(state, commit ? undefined : 'producer', freshProducerId, now);
  if (isPrepared(state)) {
    const committed = status === 'prepare-commit';
    if (cause === 'takeover') return refused(state, producerFenced(state, producer));
    if (commit === committed) return unchanged(state, WAITS);
    if (isForeign(cause)) return refused(state, transactionAborted(transactionalId, producer, cause));
    return refused(state, endedOtherwise(state, producer, committed));
  }
  if (commit && state.suspect) return refused(state, transactionAborted(transactionalId, producer, 'restart'));
  if (commit) return refused(state, nothingToCommit(state, producer));
  const change = { identity: identityAfter(identity, freshProducerId), previous: identity, cause: 'producer' as const };
  return answered(between(state, 'complete-abort', change, now));
}

function abort(state: TransactionState, event: Event<'abort'>, now: TransactionNow): TransactionTransition {
  if (state.status === 'ongoing') return prepared(state, 'administrator', event.freshProducerId, now);
  return isPrepared(state) ? unchanged(state, WAITS) : refused(state, noneOpen(state));
}

function tick(state: TransactionState, event: Event<'tick'>, now: TransactionNow): TransactionTransition {
  const deadlineMs = nextDeadlineMs(state);
  if (deadlineMs === undefined || deadlineMs > now.monotonicMs) return unchanged(state, NOTHING);
  return prepared(state, 'timeout', event.freshProducerId, now);
}

function completed(state: TransactionState, now: TransactionNow): TransactionTransition {
  const { status, identity, next, cause } = state;
  assert(next !== undefined, 'only what was decided is completed');
  const committed = status === 'prepare-commit';
  // Whoever took over is given an identity of its own: nobody is told this one.
  const previous = cause === 'takeover' ? undefined : identity;
  const change = { identity: next, previous, cause };
  const after = between(state, committed ? 'complete-commit' : 'complete-abort', change, now);
  // Of a decision that was read from the log, the answer may have been given, and the next transaction begun.
  return persisting({ ...after, suspect: state.suspect }, NOTHING);
}

/**
 * What is open under the present identity, or under one that the log has lost, was not decided: it is aborted, and its
 * producer told. What is open under an earlier one is not this state's business: a marker of the next epoch ends it.
 */
function recoveredOpen(
  state: TransactionState,
  event: Event<'recovered-open'>,
  now: TransactionNow,
): TransactionTransition {
  const { open, freshProducerId } = event;
  const { producerId, producerEpoch } = open.identity;
  const { identity, next } = state;
  if (isPrepared(state)) {
    const isLater = next?.producerId === producerId && producerEpoch >= next.producerEpoch;
    return unchanged(state, isLater ? WAITS : NOTHING);
  }
  const isPresent = identity.producerId === producerId && producerEpoch >= identity.producerEpoch;
  if (state.status === 'ongoing' || !isPresent) return unchanged(state, NOTHING);
  return prepared(withRemains(state, open, now), 'restart', freshProducerId, now);
}

function withRemains(state: TransactionState, open: OpenRemains, now: TransactionNow): TransactionState {
  return {
    ...state,
    identity: open.identity,
    startMs: now.wallMs,
    partitions: GrowingMap.of(open.partitions.map((partition) => [partitionKeyOf(partition), partition])),
    groups: GrowingMap.of(open.groupIds.map((groupId) => [groupId, groupId])),
  };
}
