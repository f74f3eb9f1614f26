/** Invariant 6: what one producer sends to one partition is in the log in that order. */
import { type Entry, type HistoryIndex, NEVER, type Partition } from '../history-index.js';
import { evidenceAt, type Point, type Violation } from '../violations.js';

export function checkSends(index: HistoryIndex): Violation[] {
  const violations: Violation[] = [];
  /** By process, its last send that was acknowledged. */
  const lasts = new Map<string, Map<Partition, Entry>>();
  for (const { event, entries } of index.attempts.values()) {
    let last = lasts.get(event.process);
    if (last === undefined) {
      last = new Map();
      lasts.set(event.process, last);
    }
    for (const entry of entries) {
      if (entry.ackedAt === NEVER) continue;
      const before = last.get(entry.partition);
      last.set(entry.partition, entry);
      if (before === undefined || before.offset <= entry.offset) continue;
      violations.push({
        kind: 'nonmonotonic-send',
        message: `${event.process} sent ${entry} after ${before}`,
        evidence: evidenceAt(index.events, [...ackPoints(before), ...ackPoints(entry)]),
      });
    }
  }
  return violations;
}

function ackPoints({ attempt, ackedAt }: Entry): Point[] {
  return [{ at: attempt!.sentAt }, { at: ackedAt }];
}
