/** DeleteRecords: raises log start offsets by offset or time; everything is checked before anything is deleted. */
import { LogError } from '../core/errors.js';
import { forEachLimit } from '../core/semaphore.js';
import type { Partition } from '../partition/partition.js';
import { refuseInternal } from './topic-errors.js';
import type { Topics } from './topics.js';

/** Partitions looked at or trimmed at once. */
const CONCURRENCY = 16;
/** Stands for the high watermark at the time the records are deleted. */
const HIGH_WATERMARK = -1;

/** Up to where a partition's records are deleted: exactly one of the two is given. */
export interface RecordsToDelete {
  readonly partition: number;
  /** Records below it are deleted; -1 for the high watermark. */
  readonly beforeOffset: number | undefined;
  /** Records before the first one at or after this time (ms since the epoch); all readable ones when there is none. */
  readonly beforeTimeMs: number | undefined;
}

export interface DeleteRecordsCommand {
  readonly topic: string;
  /** The id the caller knows, or empty. */
  readonly topicId: string;
  readonly partitions: readonly RecordsToDelete[];
}

export interface DeletedRecords {
  readonly partition: number;
  /** The first offset that can be read now. */
  readonly logStartOffset: number;
}

/**
 * Deletes records from the beginning of partitions, durably. A log start offset never goes back.
 * @returns one answer for each partition asked for, in the order asked
 * @throws LogError UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID, INVALID_TOPIC (internal), INVALID_REQUEST,
 *   OFFSET_OUT_OF_RANGE with the valid range: nothing was deleted; STORAGE_ERROR: some may have been
 */
export async function deleteRecords(
  topics: Pick<Topics, 'partition'>,
  command: DeleteRecordsCommand,
): Promise<DeletedRecords[]> {
  refuseInternal(command.topic, 'emptied');
  checkTargets(command.partitions);
  const deletions = command.partitions.map((target) => ({
    target,
    partition: topics.partition(command.topic, command.topicId, target.partition),
    before: target.beforeOffset ?? HIGH_WATERMARK,
    logStartOffset: 0,
  }));
  await forEachLimit(deletions, CONCURRENCY, async (deletion) => {
    const { beforeTimeMs } = deletion.target;
    if (beforeTimeMs !== undefined) deletion.before = await offsetAt(deletion.partition, beforeTimeMs);
  });
  for (const { partition, before } of deletions) partition.checkDeletable(before);
  await forEachLimit(deletions, CONCURRENCY, async (deletion) => {
    deletion.logStartOffset = await deletion.partition.deleteRecords(deletion.before);
  });
  return deletions.map(({ target, logStartOffset }) => ({ partition: target.partition, logStartOffset }));
}

async function offsetAt(partition: Partition, timeMs: number): Promise<number> {
  // As it is now: what is appended while this looks may well be of that time or later.
  const end = partition.highWatermark;
  const found = await partition.findByTime(timeMs);
  return found?.offset ?? end;
}

function checkTargets(targets: readonly RecordsToDelete[]): void {
  if (targets.length === 0) throw new LogError('INVALID_REQUEST', 'DeleteRecords names at least one partition.');
  const seen = new Set<number>();
  for (const target of targets) {
    if (seen.has(target.partition)) {
      throw invalid(target, `Partition ${target.partition} is named twice.`);
    }
    seen.add(target.partition);
    checkTarget(target);
  }
}

function checkTarget(target: RecordsToDelete): void {
  const { partition, beforeOffset, beforeTimeMs } = target;
  if ((beforeOffset === undefined) === (beforeTimeMs === undefined)) {
    throw invalid(target, `Partition ${partition} takes exactly one of before_offset and before_time_ms.`);
  }
  if (beforeTimeMs !== undefined && !Number.isSafeInteger(beforeTimeMs)) {
    throw invalid(target, `before_time_ms is a whole number of ms, not ${beforeTimeMs}.`);
  }
}

function invalid({ partition }: RecordsToDelete, message: string): LogError {
  return new LogError('INVALID_REQUEST', message, { metadata: { partition } });
}
