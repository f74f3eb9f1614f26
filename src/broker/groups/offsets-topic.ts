/** The topic that keeps groups and their committed offsets. */
import { placementOf } from '../state-topic/placement.js';

export const OFFSETS_TOPIC = '__group_offsets';

/** The partition that keeps a group. */
export function offsetsPartitionOf(groupId: string, partitionCount: number): number {
  return placementOf(groupId, partitionCount);
}
