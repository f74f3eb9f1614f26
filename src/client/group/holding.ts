/** One partition of a member, from the time it was assigned until it is gone. */
import type { FetchSource } from '../fetch-session.js';
import type { Topic } from '../serdes.js';
import type { Tail } from './consumed.js';
import { Progress } from './progress.js';
import type { AssignedPartition, PositionToCommit, TopicPartition } from './types.js';

/** Key of a partition in maps; unambiguous, since a partition is a number. */
export function keyOfPartition({ topic, partition }: TopicPartition): string {
  return `${topic}-${partition}`;
}

/**
 * Invariants: `source` is what may be handed out right now, and what was fetched for another one never is; `progress` is
 * known once there is a position to start at.
 */
export class Holding<K, V> {
  readonly assigned: AssignedPartition;
  readonly topic: Topic<K, V>;
  readonly key: string;
  /** Once `gone`, nothing of it can be committed any more. */
  phase: 'starting' | 'reading' | 'revoking' | 'gone' = 'starting';
  source: FetchSource | undefined;
  /** What of `source` was taken from the session: the offset that comes next. */
  fetchedTo = 0;
  /** What follows the last batch that was fetched. */
  tail: Tail | undefined;
  /** What the broker has acknowledged, or had when this began; undefined: nothing that is known of. */
  committedOffset: number | undefined;
  /** Up to where transactions have committed it since the last seek. */
  transactedTo = 0;
  /** How often in a row it could not be read. */
  refusals = 0;
  /** Rises with every seek, so that one which takes long notices that it was overtaken. */
  seeks = 0;
  /** While the position that it was sent to is looked up, or it waits before it goes on there. */
  isSeeking = false;
  /** Whether the end of the assignment was told to the owner of the consumer. */
  endTold = false;
  #progress: Progress | undefined;
  #begunAt = 0;
  /** From before it went back, since the last seek. */
  #earlier = new WeakSet<Progress>();
  #wentBackTo: number | undefined;
  #timesBack = 0;
  #inHand = 0;
  #waiting: (() => void)[] = [];
  #isAbandoned = false;

  constructor(assigned: AssignedPartition, topic: Topic<K, V>) {
    this.assigned = assigned;
    this.topic = topic;
    this.key = keyOfPartition(assigned);
  }

  get progress(): Progress | undefined {
    return this.#progress;
  }

  get topicPartition(): TopicPartition {
    return { topic: this.assigned.topic, partition: this.assigned.partition };
  }

  /** Whether it is exactly this assignment. */
  isOf({ topicId, partition, assignmentEpoch }: AssignedPartition): boolean {
    const { assigned } = this;
    return (
      assigned.assignmentEpoch === assignmentEpoch && assigned.partition === partition && assigned.topicId === topicId
    );
  }

  /** Begins at `offset`, which forgets what was handed out before. */
  beginAt(offset: number): void {
    this.#progress = new Progress(offset);
    this.#begunAt = offset;
    this.#earlier = new WeakSet();
    this.tail = undefined;
    // A commit of what was before may still be on its way: whatever it leaves, the new position is to be committed.
    this.committedOffset = undefined;
    this.transactedTo = 0;
    this.#wentBackTo = undefined;
    this.#timesBack = 0;
  }

  /**
   * Goes back to `offset`. What was handed out before may still be committed.
   * @returns how often in a row it went back there
   */
  goBackTo(offset: number): number {
    const { committedOffset, transactedTo } = this;
    const earlier = this.#earlier;
    const timesBack = this.#wentBackTo === offset ? this.#timesBack + 1 : 1;
    if (this.#progress !== undefined) earlier.add(this.#progress);
    this.beginAt(offset);
    this.#earlier = earlier;
    this.committedOffset = committedOffset;
    this.transactedTo = transactedTo;
    this.#wentBackTo = offset;
    this.#timesBack = timesBack;
    return timesBack;
  }

  /** Where to begin is to be found anew. */
  forgetPosition(): void {
    this.#progress = undefined;
    this.#earlier = new WeakSet();
    this.tail = undefined;
    this.committedOffset = undefined;
    this.isSeeking = false;
    this.phase = 'starting';
  }

  /** Whether what was handed out under this progress is still of concern: nothing was sought since. */
  covers(progress: Progress): boolean {
    return progress === this.#progress || this.#earlier.has(progress);
  }

  /** What was handed out from here on is not committed. */
  get uncommittedFrom(): number {
    return this.committedOffset ?? this.#begunAt;
  }

  /** One more record, batch, handler or look-up of the start is at work on this partition. */
  take(): void {
    this.#inHand++;
  }

  /** One less. */
  release(): void {
    this.#inHand--;
    if (this.#inHand <= 0 && this.#waiting.length > 0) this.#wake();
  }

  /** Resolves when nothing is being worked on, or that is no longer waited for. */
  whenFree(): Promise<void> {
    if (this.#inHand <= 0 || this.#isAbandoned) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** What is being worked on is waited for no longer. */
  stopWaiting(): void {
    this.#isAbandoned = true;
    this.#wake();
  }

  /** What a commit would say now; undefined when the broker knows it. */
  toCommit(): PositionToCommit | undefined {
    const progress = this.#progress;
    if (progress === undefined || this.phase === 'gone') return undefined;
    const offset = progress.committable;
    if (offset === this.committedOffset) return undefined;
    return { partition: this.assigned, offset, leaderEpoch: progress.leaderEpoch(), metadata: '' };
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
