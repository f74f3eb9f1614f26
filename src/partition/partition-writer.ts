import { setImmediate as nextTurn } from 'node:timers/promises';
import { encodeTransactionMarker, MARKER_BATCH_BYTES } from '../batch/control.js';
import {
  attributesOf,
  isTransactional,
  NO_TIMESTAMP,
  nextOffsetOf,
  producerIdOf,
  setLogAppendTime,
  stampBatch,
} from '../batch/layout.js';
import { assert } from '../core/assert.js';
import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { Slices } from '../core/slices.js';
import { toOffset } from '../core/types.js';
import type { PartitionLog } from '../storage/engine.js';
import { precedingFailed } from './append-lane.js';
import type { AppendResult } from './append-types.js';
import { type PartitionPlace, scatteredDuplicates, wrongOffset } from './errors.js';
import type { GroupSync } from './group-sync.js';
import { keepRecords } from './message-ids/identified-records.js';
import type { Admission, MessageIds } from './message-ids/message-ids.js';
import type { PartitionProducers } from './producers/partition-producers.js';
import { SLICE_MS } from './producers/producer-context.js';
import type { DuplicateBatch } from './producers/producer-states.js';
import type { TransactionEnd } from './producers/types.js';
import { type Accepted, WriteGroup } from './write-group.js';
import { type PendingAppend, type PendingEnd, type PendingWrite, WriteQueue } from './write-queue.js';

export interface PartitionWriterOptions {
  /** What errors and log lines name. */
  readonly place: PartitionPlace;
  readonly log: PartitionLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly sync: GroupSync;
  readonly producers: PartitionProducers;
  readonly messageIds: MessageIds;
}

/** Batches with producers that may be appended, or are in the log already. */
interface Judged {
  readonly result: AppendResult;
  readonly isRepeated: boolean;
}

/**
 * The queue of one partition's writes: assigns offsets in the order in which they came, and gives all that waits to the log
 * together. Producers are judged when their batches get their offsets, by everything that comes before; what was noted of
 * them is taken back when the log has not taken the batches. So it is with message ids.
 */
export class PartitionWriter {
  readonly #options: PartitionWriterOptions;
  readonly #queue = new WriteQueue();
  #writing = false;
  #inGroup = false;
  #appendsFail = false;
  #drained: (() => void) | undefined;
  /** Why nothing more is taken, if so: what this knows of the log may be wrong. */
  #defect: LogError | undefined;
  #whenAtRest: (() => void)[] = [];

  constructor(options: PartitionWriterOptions) {
    this.#options = options;
  }

  get #producers(): PartitionProducers {
    return this.#options.producers;
  }

  push(pending: PendingWrite): void {
    if (this.#defect !== undefined) {
      pending.reject(this.#defect);
      return;
    }
    this.#queue.push(pending);
    if (this.#writing) return;
    this.#writing = true;
    // After the current round of input, so that everything the network delivered together is written together.
    setImmediate(() => void this.#writeAll());
  }

  /** Ends a transaction in its turn; see `Partition.endTransaction`. */
  end(end: TransactionEnd): Promise<void> {
    return new Promise((resolve, reject) => {
      this.push({ kind: 'end', byteLength: MARKER_BATCH_BYTES, end, resolve, reject });
    });
  }

  /** Calls back between two groups: at once when none is under way. */
  atRest(callback: () => void): void {
    if (this.#inGroup) this.#whenAtRest.push(callback);
    else callback();
  }

  /** Resolves when everything that was pushed is written; nothing is to be pushed any more. */
  async drain(): Promise<void> {
    if (!this.#writing) return;
    await new Promise<void>((resolve) => {
      this.#drained = resolve;
    });
  }

  /** Never rejects. */
  async #writeAll(): Promise<void> {
    while (!this.#queue.isEmpty) {
      const writes = this.#queue.takeGroup();
      this.#inGroup = true;
      try {
        await this.#writeGroup(writes);
      } catch (error) {
        this.#stop(error, writes);
      }
      this.#inGroup = false;
      for (const callback of this.#whenAtRest.splice(0)) callback();
      // A log that writes at once gives nobody else a turn.
      if (!this.#queue.isEmpty) await nextTurn();
    }
    this.#writing = false;
    this.#drained?.();
  }

  async #writeGroup(writes: readonly PendingWrite[]): Promise<void> {
    const { log, sync, messageIds, clock } = this.#options;
    let slices: Slices | undefined;
    const group = new WriteGroup(log.endOffset, messageIds.savepoint());
    for (const pending of writes) {
      if (pending.kind === 'end') {
        this.#placeEnd(pending, group);
        continue;
      }
      // Waits in place, so that no later append overtakes this one; what others sent to this partition waits along.
      const refusedRecords = pending.refusal === undefined ? undefined : await pending.refusal;
      this.#placeAppend(pending, refusedRecords, group);
      if (!hasMessageIds(pending)) continue;
      // Very many ids may wait, too.
      slices ??= new Slices(clock, SLICE_MS);
      if (slices.isOver) await slices.pause();
    }
    if (group.accepted.length === 0) return;
    const failure = group.batches.length === 0 ? undefined : await this.#append(group);
    for (const accepted of group.accepted) {
      if (failure !== undefined && accepted.isOfGroup) accepted.reject(failure);
      else this.#answer(accepted);
    }
    sync.plan();
  }

  #placeAppend(pending: PendingAppend, refusedRecords: LogError | undefined, group: WriteGroup): void {
    const preceding = pending.options.place?.precedingFailure;
    const { place } = this.#options;
    if (preceding !== undefined) {
      pending.reject(precedingFailed(place.topic, place.index, preceding));
      return;
    }
    if (pending.hasProducer) this.#placeProducers(pending, refusedRecords, group);
    else if (hasMessageIds(pending)) this.#placeIdentified(pending, refusedRecords, group);
    else this.#placePlain(pending, refusedRecords, group);
  }

  #placePlain(pending: PendingAppend, refusedRecords: LogError | undefined, group: WriteGroup): void {
    const refusal = this.#wrongOffset(pending, group.next) ?? refusedRecords;
    if (refusal !== undefined) {
      pending.reject(refusal);
      return;
    }
    const first = group.next;
    const appendTimeMs = pending.logAppendTime ? this.#options.clock.now() : NO_TIMESTAMP;
    for (const batch of pending.batches) {
      this.#stamp(batch, group.next, appendTimeMs);
      group.add(batch);
    }
    this.#accept(pending, group, this.#resultOf(first, group.next - 1, appendTimeMs, 0));
  }

  /** Records that are there already are left out; without any other, nothing is appended. */
  #placeIdentified(pending: PendingAppend, refusedRecords: LogError | undefined, group: WriteGroup): void {
    const { messageIds } = this.#options;
    const savepoint = messageIds.savepoint();
    try {
      if (refusedRecords !== undefined) throw refusedRecords;
      const { offsets, fresh } = this.#admit(pending, group.next);
      const appendTimeMs = pending.logAppendTime && fresh.length > 0 ? this.#options.clock.now() : NO_TIMESTAMP;
      if (fresh.length > 0) {
        const [all] = pending.batches;
        const batch = fresh.length === offsets.length ? all! : keepRecords(all!, fresh);
        this.#stamp(batch, group.next, appendTimeMs);
        group.add(batch);
        group.isTracked = true;
      }
      const result = this.#resultOf(offsets[0]!, offsets.at(-1)!, appendTimeMs, offsets.length - fresh.length);
      this.#accept(pending, group, { ...result, offsets }, maxOf(offsets));
    } catch (error) {
      messageIds.undoTo(savepoint);
      pending.reject(toLogError(error));
    }
  }

  #admit({ options }: PendingAppend, nextOffset: number): Admission {
    const { messageIds, clock } = this.#options;
    return messageIds.admit(options.messageIds ?? [], nextOffset, clock.monotonic());
  }

  /** What repeats batches of the log is answered with their offsets; an append is wholly a repetition or not at all. */
  #placeProducers(pending: PendingAppend, refusedRecords: LogError | undefined, group: WriteGroup): void {
    const { states } = this.#producers;
    const savepoint = states.savepoint();
    const judged = this.#judge(pending, group.next);
    const isRepeated = !(judged instanceof LogError) && judged.isRepeated;
    const wrongOffset = isRepeated ? undefined : this.#wrongOffset(pending, group.next);
    const refusal = wrongOffset ?? refusedRecords;
    if (refusal !== undefined || judged instanceof LogError) {
      states.undoTo(savepoint);
      pending.reject(refusal ?? toLogError(judged));
      return;
    }
    if (!judged.isRepeated) {
      for (const batch of pending.batches) {
        group.add(batch);
        group.isTransactional ||= isTransactional(attributesOf(batch, 0));
      }
      group.isTracked = true;
    }
    this.#accept(pending, group, judged.result);
  }

  /** Gives the batches their offsets from `from` on and takes note of them, each judged by those before it. */
  #judge({ batches, logAppendTime }: PendingAppend, from: number): Judged | LogError {
    const { states } = this.#producers;
    const nowMs = this.#options.clock.now();
    const appendTimeMs = logAppendTime ? nowMs : NO_TIMESTAMP;
    const repeated: DuplicateBatch[] = [];
    let next = from;
    for (const batch of batches) {
      const verdict = producerIdOf(batch, 0) < 0 ? undefined : states.check(batch);
      if (verdict instanceof LogError) return verdict;
      if (verdict?.kind === 'duplicate') {
        repeated.push(verdict);
        continue;
      }
      this.#stamp(batch, next, appendTimeMs);
      states.note(batch, 0, nowMs);
      next = nextOffsetOf(batch, 0);
    }
    if (repeated.length === 0) return { result: this.#resultOf(from, next - 1, appendTimeMs, 0), isRepeated: false };
    if (repeated.length < batches.length || !areNeighbours(repeated)) return scatteredDuplicates(this.#options.place);
    const { baseOffset, logAppendTimeMs } = repeated[0]!;
    const { lastOffset } = repeated[repeated.length - 1]!;
    const count = lastOffset + 1 - baseOffset;
    return { result: this.#resultOf(baseOffset, lastOffset, logAppendTimeMs, count), isRepeated: true };
  }

  /** Nothing is appended where there is nothing to end, or what is open has begun later. */
  #placeEnd({ end, resolve, reject }: PendingEnd, group: WriteGroup): void {
    const { states } = this.#producers;
    const nowMs = this.#options.clock.now();
    const open = states.get(end.producerId)?.transaction;
    if (open !== undefined && open.producerEpoch < end.producerEpoch) {
      const marker = encodeTransactionMarker({ ...end, timestampMs: nowMs });
      this.#stamp(marker, group.next, NO_TIMESTAMP);
      states.note(marker, 0, nowMs);
      group.add(marker);
      group.isTracked = true;
    }
    group.accepted.push({ durableUpTo: group.next, isOfGroup: true, resolve, reject });
  }

  /** @param lastOffset the largest of those that the answer tells */
  #accept(
    { options, resolve, reject }: PendingAppend,
    group: WriteGroup,
    result: AppendResult,
    lastOffset: number = result.lastOffset,
  ): void {
    group.accepted.push({
      durableUpTo: options.acks === 'durable' ? lastOffset + 1 : undefined,
      isOfGroup: lastOffset >= group.at,
      resolve: () => resolve(result),
      reject,
    });
  }

  #wrongOffset({ options: { expectedOffset } }: PendingAppend, next: number): LogError | undefined {
    if (expectedOffset === undefined || expectedOffset === next) return undefined;
    return wrongOffset(this.#options.place, expectedOffset, next);
  }

  #stamp(batch: Buffer, offset: number, appendTimeMs: number): void {
    if (appendTimeMs >= 0) setLogAppendTime(batch, 0, appendTimeMs);
    stampBatch(batch, 0, offset, this.#options.log.epoch);
  }

  #resultOf(baseOffset: number, lastOffset: number, logAppendTimeMs: number, duplicateCount: number): AppendResult {
    const logStartOffset = this.#options.log.startOffset;
    return { baseOffset, lastOffset, logAppendTimeMs, logStartOffset, duplicateCount };
  }

  /** @returns why the log has not taken the group, if so; what was noted of its producers is then taken back */
  async #append(group: WriteGroup): Promise<LogError | undefined> {
    const { log, sync } = this.#options;
    try {
      const end = await log.append(group.batches, toOffset(group.at));
      assert(end === group.next, `the log ends at ${end} after an append that should end at ${group.next}`);
    } catch (error) {
      const failure = toLogError(error);
      if (group.isTracked) this.#forgetGroup(group);
      this.#noteAppend(failure);
      return failure;
    }
    this.#noteAppend(undefined);
    sync.noteWritten(group.byteLength, group.isTransactional);
    this.#producers.appended(group.byteLength, group.isTracked);
    return undefined;
  }

  /**
   * Also where the batches may be there all the same: nobody is to be told that a record or a marker is there which may not
   * be. The log takes no more then, and no reader gets that far; the next start finds out.
   */
  #forgetGroup(group: WriteGroup): void {
    this.#options.messageIds.undoTo(group.idSavepoint);
    this.#producers.states.undoTo(0);
  }

  /** One line when appends begin to fail, one when they work again: not one for each of thousands in between. */
  #noteAppend(failure: LogError | undefined): void {
    if ((failure !== undefined) === this.#appendsFail) return;
    this.#appendsFail = failure !== undefined;
    const { place, logger } = this.#options;
    const at = { topic: place.topic, partition: place.index };
    if (failure === undefined) logger.info(at, 'appends work again');
    else logger.error({ ...at, reason: failure.reason, err: failure }, 'appends fail');
  }

  #answer({ durableUpTo, resolve, reject }: Accepted): void {
    const { log, sync } = this.#options;
    if (durableUpTo === undefined || durableUpTo <= log.durableOffset) resolve();
    else sync.whenDurable({ endOffset: durableUpTo, resolve, reject });
  }

  /** @param writes under way, some of them answered perhaps */
  #stop(cause: unknown, writes: readonly PendingWrite[]): void {
    const { topic, index: partition } = this.#options.place;
    const message = 'defect in the partition writer: the partition takes nothing more until the broker is restarted';
    this.#options.logger.error({ topic, partition, err: cause }, message);
    const defect = new LogError(
      'INTERNAL',
      `A defect of the broker keeps ${topic}-${partition} from taking records until the broker is restarted.`,
      { metadata: { topic, partition }, outcome: 'unknown', cause },
    );
    this.#defect = defect;
    this.#producers.distrust();
    for (const { reject } of [...writes, ...this.#queue.takeAll()]) reject(defect);
  }
}

function hasMessageIds({ options: { messageIds = [] } }: PendingAppend): boolean {
  return messageIds.length > 0;
}

function maxOf(offsets: readonly number[]): number {
  return offsets.reduce((max, offset) => Math.max(max, offset), 0);
}

/** Whether one range of offsets tells where all of them are. */
function areNeighbours(batches: readonly DuplicateBatch[]): boolean {
  return batches.every(({ baseOffset }, i) => i === 0 || baseOffset === batches[i - 1]!.lastOffset + 1);
}
