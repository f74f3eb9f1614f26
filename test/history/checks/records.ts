/** Checks of single records: what was seen must have been sent, by a send that did not fail, and stand at one offset. */
import { type Attempt, type Entry, type HistoryIndex, NEVER } from '../history-index.js';
import { evidenceAt, pointsOf, type Violation } from '../violations.js';

export function checkRecords(index: HistoryIndex): Violation[] {
  const violations: Violation[] = [];
  for (const partition of index.partitions()) {
    for (const entry of partition.entries.values()) violations.push(...checkOffset(index, entry));
  }
  for (const attempt of index.attempts.values()) violations.push(...checkOnce(index, attempt));
  return violations;
}

function* checkOffset(index: HistoryIndex, first: Entry): Generator<Violation> {
  for (let entry: Entry | undefined = first; entry !== undefined; entry = entry.rival) {
    if (entry !== first) yield inconsistent(index, first, entry);
    if (entry.polledAt !== NEVER) yield* checkSeen(index, entry);
  }
}

function inconsistent({ events }: HistoryIndex, first: Entry, second: Entry): Violation {
  return {
    kind: 'inconsistent-offsets',
    message: `${first} is ${JSON.stringify(second.value)} as well`,
    evidence: evidenceAt(events, [...pointsOf(first), ...pointsOf(second)]),
  };
}

/** Checks an entry that somebody saw. */
function* checkSeen({ events }: HistoryIndex, entry: Entry): Generator<Violation> {
  const { attempt, polledAt } = entry;
  if (attempt === undefined) {
    yield {
      kind: 'foreign-value',
      message: `nobody had sent ${entry}`,
      evidence: evidenceAt(events, [{ at: polledAt, of: entry }]),
    };
  } else if (attempt.failure === 'none') {
    yield {
      kind: 'aborted-read',
      message: `the send of ${entry} failed without effect, yet it was seen`,
      evidence: evidenceAt(events, [{ at: attempt.sentAt }, { at: attempt.failedAt }, { at: polledAt, of: entry }]),
    };
  } else if (attempt.transaction !== undefined && entry.polledCommittedAt !== NEVER) {
    yield* checkSeenCommitted(events, entry, attempt);
  }
}

/** Checks an entry of a transaction that a reader of committed data saw. */
function* checkSeenCommitted(events: HistoryIndex['events'], entry: Entry, attempt: Attempt): Generator<Violation> {
  const { sentAt, transaction } = attempt;
  const { id, result, endedAt, commitRequestedAt } = transaction!;
  const poll = { at: entry.polledCommittedAt, of: entry };
  if (result === 'aborted') {
    yield {
      kind: 'aborted-read',
      message: `transaction ${id} was aborted, yet a reader of committed data saw ${entry}`,
      evidence: evidenceAt(events, [{ at: sentAt }, { at: endedAt }, poll]),
    };
    return;
  }
  // Where the request was not recorded, an end may have been asked for before any poll.
  const wasRequested = commitRequestedAt === NEVER ? endedAt !== NEVER : commitRequestedAt < poll.at;
  if (wasRequested) return;
  yield {
    kind: 'precommitted-read',
    message: `a reader of committed data saw ${entry} before the commit of transaction ${id} was asked for`,
    evidence: evidenceAt(events, [{ at: sentAt }, poll, { at: commitRequestedAt }]),
  };
}

function* checkOnce({ events }: HistoryIndex, attempt: Attempt): Generator<Violation> {
  const [first, second] = attempt.entries;
  if (first === undefined || second === undefined) return;
  yield {
    kind: 'duplicate',
    message: `${first} stands at ${second.partition}@${second.offset} as well`,
    evidence: evidenceAt(events, [...pointsOf(first), ...pointsOf(second)]),
  };
}
