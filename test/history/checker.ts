/**
 * Finds in the history of clients what a log must never do. The checks are those of Jepsen's workload for Kafka and
 * some for groups; what each means is said at ViolationKind.
 */
import { checkGroups } from './checks/groups.js';
import { MustSee } from './checks/must-see.js';
import { checkReading } from './checks/reading.js';
import { checkRecords } from './checks/records.js';
import { checkSends } from './checks/sends.js';
import type { HistoryEvent, HistoryOptions } from './events.js';
import type { History } from './history.js';
import { HistoryIndex } from './history-index.js';
import { describeViolations } from './report.js';
import type { Violation } from './violations.js';

/**
 * Takes time in proportion to the number of events and records.
 * @returns one violation for each value, offset or step of a reader that offends; empty if all is well
 * @throws Error if the history contradicts itself in what only the test decides
 */
export function checkHistory(events: readonly HistoryEvent[], options: HistoryOptions = {}): Violation[] {
  const index = new HistoryIndex(events);
  const mustSee = new MustSee(index, options);
  return [
    ...checkRecords(index),
    ...checkSends(index),
    ...checkReading(index, new MustSee(index, options)),
    ...checkGroups(index, mustSee),
  ];
}

/** @throws Error that tells each violation and what shows it */
export function expectNoViolations(history: Pick<History, 'events'>, options: HistoryOptions = {}): void {
  const violations = checkHistory(history.events, options);
  if (violations.length > 0) throw new Error(describeViolations(history.events.length, violations));
}
