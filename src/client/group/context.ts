/** What the parts of a group consumer share. */
import type { OffsetSpec } from '../admin.js';
import type { ResolvedConsumerOptions } from '../consumer-options.js';
import type { SessionContext } from '../fetch-session.js';
import type { Isolation } from '../isolation.js';
import type { Topic } from '../serdes.js';
import type { NoStartPosition, StartPolicy, StartPosition } from './committed-offsets.js';
import type { ConsumerEvents } from './consumer-events.js';
import type { AssignedPartition, Membership, MembershipListener, TopicPartition } from './types.js';

/** Where to begin, for each of the partitions in the order asked. */
export type FindStarts = (
  partitions: readonly AssignedPartition[],
  policy: StartPolicy,
  signal: AbortSignal,
) => Promise<(StartPosition | NoStartPosition)[]>;

export interface ConsumerContext<K, V> extends SessionContext {
  readonly options: ResolvedConsumerOptions;
  readonly events: ConsumerEvents;
  /** Whether the consumer's offsets go with transactions. */
  readonly isBound: () => boolean;
  /** Partitions that the owner has paused, by `keyOfPartition`. */
  readonly paused: ReadonlyMap<string, TopicPartition>;
  readonly topicOf: (name: string) => Topic<K, V>;
  readonly createMembership: (listener: MembershipListener) => Membership;
  readonly findStarts: FindStarts;
  readonly findOffset: (
    partition: TopicPartition,
    spec: OffsetSpec,
    isolation: Isolation,
    signal?: AbortSignal,
  ) => Promise<number>;
}
