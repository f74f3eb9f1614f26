/** Where a member begins to read the partitions that it was given. */
import { LogError } from '../../core/errors.js';
import type { Admin, OffsetSpec } from '../admin.js';
import type { ConsumeFrom } from '../consumer-options.js';
import { callFailure } from '../failures.js';
import type { Isolation } from '../isolation.js';
import {
  type CommittedOffset,
  type FetchOffsetsContext,
  fetchOffsetsOf,
  inParts,
  isGone,
  untilDone,
} from './fetch-offsets.js';
import type { AssignedPartition } from './types.js';

export interface CommittedOffsetsContext extends FetchOffsetsContext {
  readonly admin: Pick<Admin, 'listOffsets' | 'getTopic'>;
}

export interface StartPosition {
  readonly partition: AssignedPartition;
  /** The next offset to read. */
  readonly offset: number;
  /**
   * To be committed before anything else is done with the partition, letting it go included: it follows from the time at
   * which it was found, and whoever begins next would find another one and skip what lies between.
   */
  readonly commitNow: boolean;
}

/** Why a partition has no position to begin at. */
export interface NoStartPosition {
  readonly partition: AssignedPartition;
  readonly error: LogError;
  /**
   * It is not for good: the topic was deleted, recreated or not, and the broker will take the partition back; or a
   * transaction has an offset of it that is not decided.
   */
  readonly temporary: boolean;
}

export interface StartPolicy {
  /** Undefined: the user has named none. Then nothing but a group without offsets begins anywhere, at the earliest record. */
  readonly from: ConsumeFrom | undefined;
  /** What `latest` and a time are looked up in. */
  readonly isolation: Isolation;
}

/**
 * Finds where to begin, for each partition by itself.
 * @param policy where to begin without a valid offset; with no policy that is an error, unless the group has none at all
 * @param signal ends the wait with CANCELLED
 * @returns an answer for each partition, in the order asked; errors are OFFSET_OUT_OF_RANGE (below the log start offset,
 *   with the valid range), LOG_TRUNCATED (above the high watermark, with the valid range), UNKNOWN_TOPIC_ID (the group
 *   has offsets of an earlier topic of that name only), UNKNOWN_TOPIC_OR_PARTITION, UNSTABLE_OFFSET_COMMIT, and other
 *   failures that will not pass
 * @throws LogError INVALID_GROUP_ID, CANCELLED, and other failures of the group as a whole that will not pass
 */
export async function startPositions(
  groupId: string,
  partitions: readonly AssignedPartition[],
  policy: StartPolicy,
  context: CommittedOffsetsContext,
  signal?: AbortSignal,
): Promise<(StartPosition | NoStartPosition)[]> {
  if (partitions.length === 0) return [];
  const { committed, refused } = await fetchOffsetsOf(groupId, partitions, context, signal);
  const resolver = new StartResolver(groupId, committed, policy, context, signal);
  const known = partitions.filter((partition) => !refused.has(partition));
  const resolved = await Promise.all(inParts(known).map((assigned) => resolver.resolve(assigned)));
  const starts = new Map(resolved.flat().map((start) => [start.partition, start]));
  return partitions.map((partition) => {
    const error = refused.get(partition);
    return error === undefined ? (starts.get(partition) as StartPosition) : withoutPosition(partition, error);
  });
}

/** Valid offsets of a partition: from its log start offset to its high watermark. */
interface Range {
  readonly logStartOffset: number;
  readonly highWatermark: number;
}

type Offsets = ReadonlyMap<number, number>;

class StartResolver {
  readonly #groupId: string;
  readonly #committed: ReadonlyMap<string, CommittedOffset>;
  readonly #from: ConsumeFrom | undefined;
  readonly #isolation: Isolation;
  readonly #context: CommittedOffsetsContext;
  readonly #signal: AbortSignal | undefined;

  constructor(
    groupId: string,
    committed: readonly CommittedOffset[],
    { from, isolation }: StartPolicy,
    context: CommittedOffsetsContext,
    signal: AbortSignal | undefined,
  ) {
    this.#groupId = groupId;
    this.#committed = new Map(committed.map((offset) => [keyOf(offset), offset]));
    this.#from = from;
    this.#isolation = isolation;
    this.#context = context;
    this.#signal = signal;
  }

  /** @param assigned of one topic, at least one */
  async resolve(assigned: readonly AssignedPartition[]): Promise<(StartPosition | NoStartPosition)[]> {
    try {
      const [earliest, latest, chosen] = await Promise.all([
        this.#list(assigned, 'earliest'),
        this.#list(assigned, 'latest'),
        this.#listChosen(assigned),
      ]);
      const starts = assigned.map((partition) => {
        const range = {
          logStartOffset: offsetOf(earliest, partition),
          highWatermark: offsetOf(latest, partition),
        };
        return this.#start(partition, range, chosen && offsetOf(chosen, partition));
      });
      return starts.some((start) => 'error' in start) ? await this.#unlessGone(assigned, starts) : starts;
    } catch (thrown) {
      const error = callFailure(thrown);
      if (error.reason === 'CANCELLED' || error.reason === 'CLOSED') throw error;
      return assigned.map((partition) => withoutPosition(partition, error));
    }
  }

  #start(
    partition: AssignedPartition,
    range: Range,
    chosenOffset: number | undefined,
  ): StartPosition | NoStartPosition {
    const committed = this.#committed.get(keyOf(partition));
    if (committed !== undefined && committed.offset >= 0)
      return this.#goOn(partition, committed.offset, range, chosenOffset);
    // Nothing in it lies before the group's start, whatever that was.
    if (committed?.addedLater) return { partition, offset: range.logStartOffset, commitNow: false };
    const earlierTopicId = committed?.earlierTopicId ?? '';
    // With others of the topic, the group has begun anew already.
    if (earlierTopicId === '' || committed?.topicCommitted) return this.#byPolicy(partition, range, chosenOffset);
    if (this.#from === undefined) return refused(partition, earlierTopic(this.#groupId, partition, earlierTopicId));
    const fields = { ...this.#fields(partition), earlierTopicId };
    this.#context.runtime.logger.warn(fields, 'the group has offsets of an earlier topic of this name: it begins anew');
    return this.#byPolicy(partition, range, chosenOffset);
  }

  #goOn(
    partition: AssignedPartition,
    offset: number,
    range: Range,
    chosenOffset: number | undefined,
  ): StartPosition | NoStartPosition {
    if (offset > range.highWatermark) return refused(partition, aboveEnd(this.#groupId, partition, offset, range));
    if (offset >= range.logStartOffset) return { partition, offset, commitNow: false };
    if (this.#from === undefined) return refused(partition, belowStart(this.#groupId, partition, offset, range));
    const start = this.#byPolicy(partition, range, chosenOffset);
    const fields = { ...this.#fields(partition), committedOffset: offset, startOffset: start.offset };
    const skipped = start.offset - offset;
    this.#context.runtime.logger.warn(
      { ...fields, skipped },
      'the committed offset is no longer in the log: it was skipped ahead',
    );
    return start;
  }

  #byPolicy(partition: AssignedPartition, range: Range, chosenOffset: number | undefined): StartPosition {
    const from = this.#from ?? 'earliest';
    if (from === 'earliest') return { partition, offset: range.logStartOffset, commitNow: false };
    return { partition, offset: chosenOffset ?? range.highWatermark, commitNow: true };
  }

  /** What looks like a wrong offset may be the right one of a topic whose name another one has now. */
  async #unlessGone(
    assigned: readonly AssignedPartition[],
    starts: readonly (StartPosition | NoStartPosition)[],
  ): Promise<(StartPosition | NoStartPosition)[]> {
    const { topic, topicId } = assigned[0] as AssignedPartition;
    const { admin, runtime } = this.#context;
    const found = await untilDone(runtime, this.#signal, () => admin.getTopic(topic, this.#callOptions()));
    if (found.topicId === topicId) return [...starts];
    const error = recreated(topic, topicId, found.topicId);
    return assigned.map((partition) => ({ partition, error, temporary: true }));
  }

  /** Where the policy says to begin, unless that is at one of the ends of the log. */
  #listChosen(assigned: readonly AssignedPartition[]): Promise<Offsets> | undefined {
    if (this.#from instanceof Date) return this.#list(assigned, this.#from, this.#isolation);
    if (this.#from !== 'latest' || this.#isolation === 'read_uncommitted') return undefined;
    return this.#list(assigned, 'latest', this.#isolation);
  }

  async #list(
    assigned: readonly AssignedPartition[],
    spec: OffsetSpec,
    isolation: Isolation = 'read_uncommitted',
  ): Promise<Offsets> {
    const { admin, runtime } = this.#context;
    const { topic } = assigned[0] as AssignedPartition;
    const partitions = assigned.map(({ partition }) => partition);
    const list = () => admin.listOffsets(topic, spec, partitions, { isolation, ...this.#callOptions() });
    const listed = await untilDone(runtime, this.#signal, list);
    return new Map(listed.map(({ partition, offset }) => [partition, offset]));
  }

  #callOptions(): { signal?: AbortSignal } {
    return this.#signal === undefined ? {} : { signal: this.#signal };
  }

  #fields({ topic, partition }: AssignedPartition): object {
    return { group: this.#groupId, topic, partition };
  }
}

function keyOf({ topicId, partition }: { readonly topicId: string; readonly partition: number }): string {
  return `${topicId}-${partition}`;
}

function offsetOf(offsets: Offsets, { topic, partition }: AssignedPartition): number {
  const offset = offsets.get(partition);
  if (offset !== undefined) return offset;
  throw new LogError('INTERNAL', `The broker named no offset for partition ${partition} of topic ${topic}.`);
}

function withoutPosition(partition: AssignedPartition, error: LogError): NoStartPosition {
  return { partition, error, temporary: error.reason === 'UNSTABLE_OFFSET_COMMIT' || isGone(error) };
}

function refused(partition: AssignedPartition, error: LogError): NoStartPosition {
  return { partition, error, temporary: false };
}

function rangeMetadata(
  { topic, partition }: AssignedPartition,
  group: string,
  offset: number,
  range: Range,
): Record<string, string | number> {
  const { logStartOffset, highWatermark } = range;
  return { group, topic, partition, offset, log_start_offset: logStartOffset, high_watermark: highWatermark };
}

function belowStart(group: string, partition: AssignedPartition, offset: number, range: Range): LogError {
  const name = `${partition.topic}-${partition.partition}`;
  return new LogError(
    'OFFSET_OUT_OF_RANGE',
    `Group ${group} has committed offset ${offset} of ${name}, which now begins at ${range.logStartOffset}: records that ` +
      'it has not read were deleted. Name a policy with the option from (earliest, latest or a Date), or choose where to ' +
      `go on with \`tidelog group reset-offsets ${group}\`. Valid are ${range.logStartOffset} to ${range.highWatermark}.`,
    { metadata: rangeMetadata(partition, group, offset, range) },
  );
}

function aboveEnd(group: string, partition: AssignedPartition, offset: number, range: Range): LogError {
  const name = `${partition.topic}-${partition.partition}`;
  return new LogError(
    'LOG_TRUNCATED',
    `Group ${group} has committed offset ${offset} of ${name}, which ends at ${range.highWatermark}: the log has lost ` +
      'records that were read, as after a restore from an older copy. Choose where to go on with ' +
      `\`tidelog group reset-offsets ${group}\`. Valid are ${range.logStartOffset} to ${range.highWatermark}.`,
    { metadata: rangeMetadata(partition, group, offset, range) },
  );
}

function earlierTopic(
  group: string,
  { topic, topicId, partition }: AssignedPartition,
  earlierTopicId: string,
): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${topic} was deleted and created anew since group ${group} committed offsets of it, which mean nothing for ` +
      'the new one. Name where to begin with the option from (earliest, latest or a Date), or with ' +
      `\`tidelog group reset-offsets ${group}\`.`,
    { metadata: { group, topic, partition, topic_id: topicId, earlier_topic_id: earlierTopicId } },
  );
}

function recreated(topic: string, topicId: string, newTopicId: string): LogError {
  return new LogError('UNKNOWN_TOPIC_ID', `Topic ${topic} was deleted and created anew.`, {
    metadata: { topic, topic_id: newTopicId, requested_topic_id: topicId },
  });
}
