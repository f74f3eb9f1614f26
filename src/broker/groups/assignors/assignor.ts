/** What assignors are given and what they make of it. They depend on nothing else, so that the same gives the same. */
import type { GroupTopic, PartitionKey, TargetPartition } from '../group-types.js';

export interface AssignorMember {
  readonly memberId: string;
  /** Names of what it subscribes to, some of which may not exist. */
  readonly topics: ReadonlySet<string>;
}

export interface AssignorTopic extends GroupTopic {
  /** Indexes of members, ascending; at least one. */
  readonly subscribers: readonly number[];
}

export interface AssignorInput {
  /** In the order in which they are served. */
  readonly members: readonly AssignorMember[];
  /** By name, each with subscribers. */
  readonly topics: readonly AssignorTopic[];
  /** What was worked out last: sticky assignors change as little of it as they can. */
  readonly current: ReadonlyMap<PartitionKey, TargetPartition>;
}

/** Gives each partition of each topic to exactly one subscriber. */
export type Assignor = (input: AssignorInput) => Map<PartitionKey, TargetPartition>;
