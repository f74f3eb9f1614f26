/** What a member holds, and what an assignment changes of it. */
import type { AssignedPartitionMessage, TopicPartitionsMessage } from '../../rpc/group-messages.js';
import type { AssignedPartition } from './types.js';

/** What a new assignment means for the partitions of a member. */
export interface AssignmentChange {
  /** Given to the member. */
  readonly assigned: readonly AssignedPartition[];
  /** To be let go. */
  readonly revoked: readonly AssignedPartition[];
  /** Their offset was reset: what is known of them is void. Those that go on are in `assigned` too. */
  readonly reset: readonly AssignedPartition[];
}

function keyOf({ topicId, partition }: { readonly topicId: string; readonly partition: number }): string {
  return `${topicId}-${partition}`;
}

/**
 * Invariants: a partition is held or being revoked, never both; `#current` holds the very objects of both maps, so that
 * the check before each record costs no key.
 */
export class HeldPartitions {
  readonly #held = new Map<string, AssignedPartition>();
  readonly #revoking = new Map<string, AssignedPartition>();
  readonly #current = new Set<AssignedPartition>();

  /** Held and being revoked. */
  get size(): number {
    return this.#current.size;
  }

  get isRevoking(): boolean {
    return this.#revoking.size > 0;
  }

  /** Whether exactly this assignment is held or being revoked. */
  has(partition: AssignedPartition): boolean {
    if (this.#current.has(partition)) return true;
    const key = keyOf(partition);
    const current = this.#held.get(key) ?? this.#revoking.get(key);
    return current !== undefined && current.assignmentEpoch === partition.assignmentEpoch;
  }

  /**
   * Takes over a newer assignment.
   * @param takeNew whether partitions may be added; if not, only what goes is looked at
   */
  apply(assignment: readonly AssignedPartitionMessage[], takeNew: boolean): AssignmentChange {
    const assigned: AssignedPartition[] = [];
    const reset: AssignedPartition[] = [];
    const named = new Set<string>();
    for (const message of assignment) {
      const key = keyOf(message);
      named.add(key);
      const current = this.#held.get(key) ?? this.#revoking.get(key);
      // One that is being revoked is not the member's again before it was let go: it then has a higher epoch.
      if (current !== undefined && message.assignmentEpoch <= current.assignmentEpoch) continue;
      if (current !== undefined) {
        this.#remove(key, current);
        reset.push(current);
      }
      if (takeNew) assigned.push(this.#add(key, message));
    }
    const revoked = [...this.#held].filter(([key]) => !named.has(key)).map(([, partition]) => partition);
    for (const partition of revoked) this.#beginRevoking(partition);
    return { assigned, revoked, reset };
  }

  /** Begins to let go of everything; returns what was not on its way yet. */
  revokeAll(): AssignedPartition[] {
    const all = [...this.#held.values()];
    for (const partition of all) this.#beginRevoking(partition);
    return all;
  }

  /** Lets go of those that are still being revoked, and returns them. */
  letGo(partitions: readonly AssignedPartition[]): AssignedPartition[] {
    const gone = partitions.filter((partition) => this.#revoking.get(keyOf(partition)) === partition);
    for (const partition of gone) this.#remove(keyOf(partition), partition);
    return gone;
  }

  /** Lets go of everything, and returns it. */
  takeAll(): AssignedPartition[] {
    const all = [...this.#current];
    this.#held.clear();
    this.#revoking.clear();
    this.#current.clear();
    return all;
  }

  /** Everything that a heartbeat must report. */
  owned(): TopicPartitionsMessage[] {
    const topics = new Map<string, TopicPartitionsMessage>();
    for (const { topic, topicId, partition } of this.#current) {
      const known = topics.get(topicId);
      if (known === undefined) topics.set(topicId, { topic, topicId, partitions: [partition] });
      else known.partitions.push(partition);
    }
    return [...topics.values()];
  }

  #add(key: string, { topic, topicId, partition, assignmentEpoch }: AssignedPartitionMessage): AssignedPartition {
    const added = { topic, topicId, partition, assignmentEpoch };
    this.#held.set(key, added);
    this.#current.add(added);
    return added;
  }

  #beginRevoking(partition: AssignedPartition): void {
    const key = keyOf(partition);
    this.#held.delete(key);
    this.#revoking.set(key, partition);
  }

  #remove(key: string, partition: AssignedPartition): void {
    this.#held.delete(key);
    this.#revoking.delete(key);
    this.#current.delete(partition);
  }
}
