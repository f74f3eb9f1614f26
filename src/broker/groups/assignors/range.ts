/**
 * The range assignor: of each topic, every subscriber gets one run of neighbouring partitions, the first subscribers one
 * partition more where it does not come out even. Members with equal subscriptions get the same numbers of topics with
 * equal partition counts, so that records with one key meet in one member. It does not care who had what.
 */
import { partitionKey } from '../../../core/types.js';
import type { PartitionKey, TargetPartition } from '../group-types.js';
import type { AssignorInput, AssignorTopic } from './assignor.js';

export function assignRange({ members, topics }: AssignorInput): Map<PartitionKey, TargetPartition> {
  const target = new Map<PartitionKey, TargetPartition>();
  for (const topic of topics) {
    for (let partition = 0; partition < topic.partitionCount; partition++) {
      const { memberId } = members[ownerOf(topic, partition)]!;
      const key = partitionKey({ topicId: topic.id, partition });
      target.set(key, { memberId, topic: topic.name, topicId: topic.id, partition });
    }
  }
  return target;
}

/** Index of a member. */
function ownerOf({ subscribers, partitionCount }: AssignorTopic, partition: number): number {
  const least = Math.floor(partitionCount / subscribers.length);
  const withOneMore = partitionCount % subscribers.length;
  const inLongRuns = withOneMore * (least + 1);
  if (partition < inLongRuns) return subscribers[Math.floor(partition / (least + 1))]!;
  return subscribers[withOneMore + Math.floor((partition - inLongRuns) / least)]!;
}
