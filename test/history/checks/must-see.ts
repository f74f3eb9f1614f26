/** Which of the entries known of a partition a reader that comes by must see. */
import type { HistoryOptions } from '../events.js';
import type { Attempt, Entry, HistoryIndex, Isolation, Partition, Topic } from '../history-index.js';

/** Entries in ascending order of their offsets, one for each offset. */
export type EntryList = readonly Entry[];

/** The place in `entries`, which ascend, of the first at or above `offset`. */
export function firstFrom(entries: readonly { readonly offset: number }[], offset: number): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (entries[middle]!.offset < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Nobody has to see what certainly failed, what nobody sent, what compaction may have removed; readers of committed data
 * only what is not part of a transaction or of one that was committed. Trims are left to the caller: they depend on when
 * a reader came by.
 */
export class MustSee {
  readonly #lists: Readonly<Record<Isolation, ReadonlyMap<Partition, EntryList>>>;

  constructor(index: HistoryIndex, { compacted = new Set() }: HistoryOptions) {
    const committed = new Map<Partition, EntryList>();
    const uncommitted = new Map<Partition, EntryList>();
    for (const topic of index.topics.values()) {
      const compaction = compacted.has(topic.name) ? new Compaction(topic) : undefined;
      for (const partition of topic.partitions.values()) {
        const there = [...partition.entries.values()].filter((entry) => isThere(entry, compaction));
        there.sort((a, b) => a.offset - b.offset);
        uncommitted.set(partition, there);
        committed.set(partition, there.filter(isCommitted));
      }
    }
    this.#lists = { read_committed: committed, read_uncommitted: uncommitted };
  }

  by(isolation: Isolation, partition: Partition): EntryList {
    return this.#lists[isolation].get(partition) ?? [];
  }
}

function isThere(entry: Entry, compaction: Compaction | undefined): boolean {
  if (entry.attempt === undefined || entry.attempt.failure === 'none') return false;
  return compaction === undefined || !compaction.mayRemove(entry, entry.attempt);
}

function isCommitted({ attempt }: Entry): boolean {
  return attempt?.transaction === undefined || attempt.transaction.isCommitted;
}

/** What is known of one key of a compacted topic. */
class KeyUpdates {
  /** The highest offset by partition of a record that may replace those before it. */
  readonly last: Map<Partition, number> = new Map();
  /** By process, the index of its last send that may stand in the log unseen, at any offset. */
  readonly undecided: Map<string, number> = new Map();
}

class Compaction {
  readonly #keys = new Map<string, KeyUpdates>();

  constructor(topic: Topic) {
    for (const attempt of topic.attempts.values()) this.#take(attempt);
  }

  /** Whether the record may be gone at some time, because a later one of its key replaces it or it is a tombstone. */
  mayRemove({ partition, offset }: Entry, { event, sentAt, transaction }: Attempt): boolean {
    if (event.key === undefined) return false;
    if (event.tombstone || (transaction !== undefined && !transaction.isCommitted)) return true;
    const updates = this.#keys.get(event.key);
    if (updates === undefined) return false;
    if (offset < (updates.last.get(partition) ?? -1)) return true;
    // What one process sends to a key lies in the log in that order; of two processes any order is possible.
    const own = updates.undecided.get(event.process);
    if (own === undefined) return updates.undecided.size > 0;
    return updates.undecided.size > 1 || own > sentAt;
  }

  #take(attempt: Attempt): void {
    const { key, process } = attempt.event;
    if (key === undefined || attempt.transaction?.result === 'aborted') return;
    let updates = this.#keys.get(key);
    if (updates === undefined) {
      updates = new KeyUpdates();
      this.#keys.set(key, updates);
    }
    if (!attempt.isDecided) updates.undecided.set(process, attempt.sentAt);
    for (const { partition, offset } of attempt.entries) {
      updates.last.set(partition, Math.max(offset, updates.last.get(partition) ?? -1));
    }
  }
}
