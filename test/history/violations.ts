/** What a history may show that a log must never do. */
import type { HistoryEvent, Place } from './events.js';
import { type Entry, NEVER, type Partition } from './history-index.js';

export type ViolationKind =
  /**
   * A record is gone. Either it was acknowledged (and its transaction, if any, committed), nobody ever saw it, and a
   * reader passed over its offset; or it was seen, and a later reader found the end of the partition at or below it.
   */
  | 'lost-write'
  /**
   * Acknowledged, never seen by anybody, and nobody read beyond it, although the last reader that came to the end of the
   * partition had begun after the acknowledgement: the end lies at or below the offset. A history should therefore close
   * with a reader to the end of each partition, when all that was acknowledged is durable and no transaction is open.
   */
  | 'unseen'
  /** A value stands at two offsets: a send that was repeated is in the log twice. */
  | 'duplicate'
  /** A record was seen whose send certainly failed, or, by a reader of committed data, whose transaction was aborted. */
  | 'aborted-read'
  /**
   * A reader of committed data saw a record of a transaction before its commit was asked for; or, where the history has
   * no `commit-transaction` of it, although it has no end that may have been a commit either.
   */
  | 'precommitted-read'
  /**
   * A reader of committed data saw some of a transaction, and one passed over another record of it that was acknowledged and
   * that nobody ever saw: all or nothing, whatever became of the answer to its commit.
   */
  | 'torn-transaction'
  /** One offset of a partition names two values, whoever says so and whenever. */
  | 'inconsistent-offsets'
  /**
   * A reader passed over a record that somebody else saw: between two of its polls, between the position assigned and its
   * first poll, or between its last poll and the end it came to. Records that may be gone (below a trim, replaced in a
   * compacted topic) and those it must not see (transactions aborted or of unknown end) may be passed over.
   */
  | 'poll-skip'
  /** A reader was handed a record at or below one it was handed before in the same assignment. */
  | 'nonmonotonic-poll'
  /** Of two sends of one producer to one partition the later one was acknowledged at the lower offset. */
  | 'nonmonotonic-send'
  /** A record was seen that nobody had sent. */
  | 'foreign-value'
  /** A member of a group began below an offset that the group had committed, and no reset had been asked for. */
  | 'lost-commit'
  /**
   * A group committed an offset, or a member of it began at one, above a record that no member has finished since the
   * group began, or since its offset was reset last.
   */
  | 'group-skip'
  /** A partition was assigned to a member of a group, or a record of it handed to one, while another member had it. */
  | 'two-owners';

/** The invariants of TESTING.md that a violation breaks. */
export const INVARIANTS: Readonly<Record<ViolationKind, readonly number[]>> = {
  'lost-write': [1, 4],
  unseen: [1, 4],
  duplicate: [5, 6],
  'aborted-read': [5, 11],
  'precommitted-read': [11],
  'torn-transaction': [11],
  'inconsistent-offsets': [4],
  'poll-skip': [7, 11],
  'nonmonotonic-poll': [7],
  'nonmonotonic-send': [6],
  'foreign-value': [4],
  'lost-commit': [8],
  'group-skip': [7, 8],
  'two-owners': [9, 10],
};

/** An event of the history with its place there; of lists in it (records, positions) only what matters. */
export type Evidence = HistoryEvent & { readonly index: number };

export interface Violation {
  readonly kind: ViolationKind;
  /** One sentence. */
  readonly message: string;
  /** The few events that show it, in the order of the history. */
  readonly evidence: readonly Evidence[];
}

/** An event by its index and, if it is a list, what in it matters. */
export interface Point {
  readonly at: number;
  readonly of?: { readonly partition: Partition; readonly offset: number };
}

/** The points that show what stands at an offset. */
export function pointsOf(entry: Entry): Point[] {
  return [{ at: entry.attempt?.sentAt ?? NEVER }, { at: entry.knownAt, of: entry }];
}

/** The events at the points, each once; a point that is NEVER is none. */
export function evidenceAt(events: readonly HistoryEvent[], points: readonly Point[]): Evidence[] {
  const indexes = new Set(points.map(({ at }) => at).filter((at) => at !== NEVER));
  return [...indexes]
    .sort((a, b) => a - b)
    .map((index) => {
      const ofs = points.filter(({ at }) => at === index).flatMap(({ of }) => of ?? []);
      return { ...narrowed(events[index]!, ofs), index };
    });
}

function narrowed(event: HistoryEvent, ofs: readonly NonNullable<Point['of']>[]): HistoryEvent {
  const concerned = (place: Place): boolean => ofs.some(({ partition }) => partition.is(place));
  switch (event.kind) {
    case 'poll': {
      const isOne = ({ offset, ...place }: Place & { offset: number }): boolean =>
        ofs.some((of) => of.offset === offset && of.partition.is(place));
      return { ...event, records: event.records.filter(isOne) };
    }
    case 'assign':
    case 'commit':
    case 'ask-reset':
    case 'reset-offsets':
      return { ...event, positions: event.positions.filter(concerned) };
    default:
      return event;
  }
}
