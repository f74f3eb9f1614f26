/** What becomes of a lane's batches after a failure: repeated, numbered anew, split, sent elsewhere, or given up. */
import { LogError, toLogError } from '../core/errors.js';
import type { BatchAck } from './completions.js';
import type { Identities } from './identity.js';
import type { Lane } from './lane.js';
import { isUnknownTopic, type MetadataCache, type TopicMetadata } from './metadata-cache.js';
import type { ClientRuntime, ResolvedProducerOptions } from './options.js';
import type { ProducerBatch } from './producer-batch.js';
import { batchesFor, mayGoTo, recreatedMeanwhile } from './recreated-topic.js';
import { backoffMs } from './retry.js';
import type { LaneSequences } from './sequences.js';

export interface RecoveryContext {
  readonly runtime: ClientRuntime;
  readonly options: ResolvedProducerOptions;
  /** Is told what the broker contradicts, and asked for a topic that was recreated. */
  readonly metadata: MetadataCache;
  /** Undefined without idempotence. */
  readonly identities: Identities | undefined;
}

/** What recovery does to batches through their sender. */
export interface Settler {
  succeed(lane: Lane, batch: ProducerBatch, ack: BatchAck): void;
  fail(batch: ProducerBatch, error: LogError): void;
  /** The parts have taken the batch's place in its lane. */
  replaced(batch: ProducerBatch, parts: readonly ProducerBatch[]): void;
  /** The lane may be sent from again. */
  pump(lane: Lane): void;
}

/** What is to be done once a lane's batches have been sorted out. */
interface Plan {
  tooLarge: ProducerBatch | undefined;
  recreated: TopicMetadata | undefined;
  /** Why nothing is sent for a while. */
  waitFor: LogError | undefined;
}

/**
 * Recovers lanes that have drained after a failure. Invariants:
 * - what goes again goes in the old order, with the same bytes, and the same sequences if it may have been written: a
 *   partition takes it for new or for a repetition, and in both cases it is there once;
 * - what was given up stays in the queue until its turn, because it may take up sequences (see `LaneSequences`);
 * - a lane that is out of order begins anew under a higher epoch. If something that was given up may still arrive, what
 *   was sent behind it may arrive with it, before the higher epoch does: that is given up as well, its outcome unknown,
 *   so that it is never in the log under two numbers. Only what definitely was not written begins anew.
 */
export class Recovery {
  readonly #context: RecoveryContext;
  readonly #settler: Settler;

  constructor(context: RecoveryContext, settler: Settler) {
    this.#context = context;
    this.#settler = settler;
  }

  /** Everything in flight has been answered, and the oldest has failed: sorts out what goes again. */
  recover(lane: Lane): void {
    const answered = lane.inFlight;
    lane.inFlight = [];
    lane.stream = undefined;
    lane.draining = false;
    const [head] = answered;
    const cause = head?.error;
    if (head === undefined || cause === undefined) return;
    const { sequences } = lane;
    sequences?.rewind(head);
    const isFenced = sequences?.transactional === false && cause.reason === 'PRODUCER_FENCED';
    const isOutOfOrder = cause.reason === 'OUT_OF_ORDER_SEQUENCE_NUMBER' && sequences?.mayRestart(head) === true;
    const plan: Plan = { tooLarge: undefined, recreated: undefined, waitFor: undefined };
    const mayRepeatHead = isOutOfOrder || isFenced;
    let isFollower = false;
    for (const batch of answered) {
      const error = this.#takeAnswer(lane, batch, isFollower);
      isFollower ||= error?.outcome === 'none';
      if (error !== undefined && !batch.settled) this.#sortOut(batch, error, batch === head, mayRepeatHead, plan);
    }
    lane.queue = [...answered, ...lane.queue];
    if (plan.waitFor !== undefined) this.#backOff(lane, plan.waitFor);
    if (isFenced) this.#replaceProducerId(lane, cause);
    else if (isOutOfOrder && sequences !== undefined) this.#restart(lane, sequences, cause);
    // A topic has been recreated: whether its batches are too large for the new one is another question.
    else if (plan.recreated !== undefined) this.#findAgain(lane, plan.recreated);
    else if (plan.tooLarge !== undefined) this.#split(lane, plan.tooLarge);
  }

  /** Takes an answer off a batch, and settles the batch if it was acknowledged. @returns why the attempt failed */
  #takeAnswer(lane: Lane, batch: ProducerBatch, isFollower: boolean): LogError | undefined {
    const { ack, error } = batch;
    batch.ack = undefined;
    batch.error = undefined;
    batch.inFlight = false;
    if (error !== undefined) batch.noteFailure(error, isFollower);
    if (ack !== undefined) {
      // Its place in the queue tells that its sequences are taken.
      batch.maybeWritten = true;
      this.#settler.succeed(lane, batch, ack);
    }
    return error;
  }

  #sortOut(batch: ProducerBatch, error: LogError, isHead: boolean, mayRepeatHead: boolean, plan: Plan): void {
    const isIdempotent = batch.identity !== undefined;
    // Where something before it failed, what the broker says of the sequence is only the consequence.
    const isConsequence =
      !isHead && (error.reason === 'PRECEDING_APPEND_FAILED' || error.reason === 'OUT_OF_ORDER_SEQUENCE_NUMBER');
    if (isConsequence || (isHead && mayRepeatHead)) return;
    if (error.reason === 'MESSAGE_TOO_LARGE' && batch.recordCount > 1 && !(isIdempotent && batch.maybeWritten)) {
      plan.tooLarge ??= batch;
    } else if (error.retryable) {
      plan.waitFor ??= error;
    } else if (error.reason === 'UNKNOWN_TOPIC_ID' && !batch.maybeWritten) {
      plan.recreated ??= batch.target;
      plan.waitFor ??= error;
    } else this.#settler.fail(batch, batch.withOutcome(error));
  }

  /**
   * A batch before the lane's head is missing in the partition: it was given up, or the broker has lost what it had not
   * made durable. So nothing of the lane has been written that was not acknowledged.
   */
  #restart(lane: Lane, sequences: LaneSequences, error: LogError): void {
    const { logger } = this.#context.runtime;
    const { topic, partition } = lane;
    if (sequences.hasGap) this.#giveUpAttempted(lane, error);
    else logger.warn({ topic, partition, error: error.message }, 'the broker has lost records of this producer');
    this.#backOff(lane, error);
    if (!sequences.bump()) this.#hold(lane, this.#renewIdentity(lane, sequences));
  }

  /** Gives up what was sent and may still arrive. */
  #giveUpAttempted(lane: Lane, cause: LogError): void {
    const { topic, partition } = lane;
    for (const batch of lane.queue) {
      if (batch.settled || !batch.maybeWritten) continue;
      const message = `Records before those for ${topic}-${partition} were given up, and whether these arrived is not known.`;
      const options = { metadata: { topic, partition }, cause, outcome: 'unknown' } as const;
      this.#settler.fail(batch, new LogError(cause.reason, message, options));
    }
  }

  /** The broker takes somebody else for this producer: what is under way fails, what comes goes under another id. */
  #replaceProducerId(lane: Lane, error: LogError): void {
    const { sequences } = lane;
    this.#failQueue(lane, error);
    if (sequences !== undefined) this.#hold(lane, this.#renewIdentity(lane, sequences));
  }

  async #renewIdentity(lane: Lane, sequences: LaneSequences): Promise<void> {
    try {
      const identity = await this.#context.identities?.renewed(sequences.identity);
      if (identity !== undefined) sequences.restart(identity);
    } catch (error) {
      // What comes next leads here again.
      this.#failQueue(lane, toLogError(error));
    }
  }

  /** Nothing of the lane is sent before `work`, which does not fail, has ended. */
  #hold(lane: Lane, work: Promise<void>): void {
    lane.held = true;
    void work.then(() => {
      lane.held = false;
      this.#settler.pump(lane);
    });
  }

  #failQueue(lane: Lane, error: LogError): void {
    for (const batch of lane.queue) if (!batch.settled) this.#settler.fail(batch, batch.withOutcome(error));
  }

  /**
   * The lane's topic was deleted. Records are sent to a topic by its name, and until its promise is settled a record may
   * arrive at any time: if there is a new topic of that name, they go there.
   */
  #findAgain(lane: Lane, lost: TopicMetadata): void {
    this.#context.metadata.invalidate(lost.name, lost.topicId);
    this.#hold(lane, this.#moveTo(lane, lost));
  }

  async #moveTo(lane: Lane, lost: TopicMetadata): Promise<void> {
    try {
      this.#retarget(lane, lost, await this.#context.metadata.get(lost.name));
    } catch (error) {
      // When nobody answers, the next attempt leads here again.
      if (!isUnknownTopic(error)) return;
      for (const batch of batchesFor(lane, lost)) this.#settler.fail(batch, batch.withOutcome(error));
    }
  }

  /** Batches of a topic that is gone go to the one that took its name, unless that could repeat or misplace records. */
  #retarget(lane: Lane, lost: TopicMetadata, found: TopicMetadata): void {
    // What the client has learnt may be older than what the broker said; the next attempt leads here again.
    if (found.topicId === lost.topicId) return;
    for (const batch of batchesFor(lane, lost)) {
      if (mayGoTo(found, batch)) batch.target = found;
      else this.#settler.fail(batch, recreatedMeanwhile(batch, found));
    }
  }

  #backOff(lane: Lane, error: LogError): void {
    lane.failures++;
    const { runtime, options } = this.#context;
    const wait = backoffMs(lane.failures, options, runtime.random, error);
    lane.retryAtMs = runtime.clock.monotonic() + wait;
    runtime.logger.debug(
      { topic: lane.topic, partition: lane.partition, reason: error.reason, error: error.message, waitMs: wait },
      'produce will be repeated',
    );
  }

  /** Replaces a batch that the broker found too large by two. */
  #split(lane: Lane, batch: ProducerBatch): void {
    this.#hold(lane, this.#replaceByParts(lane, batch));
  }

  async #replaceByParts(lane: Lane, batch: ProducerBatch): Promise<void> {
    try {
      const parts = await batch.split(this.#context.options.compression);
      // It may have run out of time meanwhile.
      if (batch.settled) return;
      batch.settled = true;
      batch.bytes = undefined;
      lane.queue.splice(lane.queue.indexOf(batch), 1, ...parts);
      for (const part of parts) {
        part.maybeWritten = batch.maybeWritten;
        part.lastError = batch.lastError;
      }
      this.#settler.replaced(batch, parts);
    } catch (error) {
      if (!batch.settled) this.#settler.fail(batch, toLogError(error));
    }
  }
}
