/** Groups as the log has them, made those that are served. */
import { errorMessage } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { restoreGroup } from './group.js';
import { type EntryTiming, GroupEntry } from './group-entry.js';
import type { GroupNow, TopicView } from './group-types.js';
import { GroupTransactions } from './pending-offsets.js';
import type { LoadedGroup } from './shard-loader.js';
import type { TopicDirectory } from './topic-directory.js';

/** A pattern that no longer can be resolved matches nothing. */
export async function resolvePatterns(
  { members }: LoadedGroup,
  directory: TopicDirectory,
  logger: Logger,
): Promise<void> {
  for (const { subscription } of members.values()) {
    if (subscription.pattern === undefined || directory.isResolved(subscription.pattern)) continue;
    try {
      await directory.resolve(subscription.pattern);
    } catch (error) {
      logger.warn({ pattern: subscription.pattern, err: errorMessage(error) }, 'a pattern matches nothing any more');
    }
  }
}

export function restoreEntry(
  groupId: string,
  { group, topics: begun, members, offsets, pending }: LoadedGroup,
  topics: TopicView,
  now: GroupNow,
  timing: EntryTiming,
): GroupEntry {
  const state = restoreGroup(groupId, { group, topics: begun, members: [...members.values()] }, topics, now);
  const entry = new GroupEntry(state, timing);
  entry.durable = state;
  for (const [topicId, partitions] of offsets) {
    for (const [partition, offset] of partitions) {
      entry.offsets.set({ topicId, partition }, offset);
      entry.takeOrder(offset.order);
    }
  }
  if (pending.size === 0) return entry;
  entry.transactions = new GroupTransactions();
  for (const [producerId, value] of pending) {
    entry.transactions.restore({ producerId, value });
    for (const { order } of value.offsets.values()) entry.takeOrder(order);
  }
  return entry;
}
