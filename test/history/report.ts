/** Violations as text for people. */
import type { HistoryEvent, Place, Position, SeenRecord } from './events.js';
import { INVARIANTS, type Violation, type ViolationKind } from './violations.js';

/** Violations of one kind that are printed; of the rest only the number. */
const MAX_PRINTED = 10;

export function describeViolations(eventCount: number, violations: readonly Violation[]): string {
  const kinds = new Set(violations.map(({ kind }) => kind));
  const paragraphs = [...kinds].flatMap((kind) =>
    describeKind(
      kind,
      violations.filter((violation) => violation.kind === kind),
    ),
  );
  return [`${violations.length} violations in a history of ${eventCount} events`, ...paragraphs].join('\n');
}

function describeKind(kind: ViolationKind, violations: readonly Violation[]): string[] {
  const rest = violations.length - MAX_PRINTED;
  return [
    `${kind} (invariants ${INVARIANTS[kind].join(', ')}): ${violations.length}`,
    ...violations.slice(0, MAX_PRINTED).flatMap(describeViolation),
    ...(rest > 0 ? [`  and ${rest} more`] : []),
  ];
}

function describeViolation({ message, evidence }: Violation): string[] {
  return [`  ${message}`, ...evidence.map((event) => `    #${event.index} ${describeEvent(event)}`)];
}

function describeEvent(event: HistoryEvent): string {
  switch (event.kind) {
    case 'send': {
      const key = event.key === undefined ? '' : ` key ${event.key}`;
      const tombstone = event.tombstone ? ' tombstone' : '';
      const transaction = event.transaction === undefined ? '' : ` in transaction ${event.transaction}`;
      return `${event.process} send ${event.send} to ${event.topic}: ${event.value}${key}${tombstone}${transaction}`;
    }
    case 'ack':
      return `${event.process} ack of send ${event.send}: partition ${event.partition} offset ${event.offset}`;
    case 'error':
      return `${event.process} error of send ${event.send}: outcome ${event.outcome}`;
    case 'commit-transaction':
      return `${event.process} asks to commit transaction ${event.transaction}`;
    case 'end-transaction':
      return `${event.process} transaction ${event.transaction} ${event.result}`;
    case 'poll':
      return `${event.process} poll${event.isolation === undefined ? '' : ` ${event.isolation}`}: ${list(event.records, seen)}`;
    case 'assign': {
      const group = event.group === undefined ? '' : ` by group ${event.group}`;
      return `${event.process} assigned${group}: ${list(event.positions, position)}`;
    }
    case 'revoke':
      return `${event.process} revoked: ${list(event.places, place)}`;
    case 'commit':
      return `${event.process} commit of group ${event.group}: ${list(event.positions, position)}`;
    case 'finish':
      return `${event.process} finished: ${list(event.records, position)}`;
    case 'ask-reset':
      return `asks to reset group ${event.group}: ${list(event.positions, position)}`;
    case 'reset-offsets':
      return `reset of group ${event.group}: ${list(event.positions, position)}`;
    case 'end':
      return `${event.process} end: ${position(event.end)}`;
    case 'trim':
      return `trim before ${position(event.before)}`;
    case 'crash':
      return `crash: ${event.what}`;
  }
}

function list<T>(items: readonly T[], describe: (item: T) => string): string {
  return items.map(describe).join(', ');
}

function place({ topic, partition }: Place): string {
  return `${topic}/${partition}`;
}

function position(at: Position): string {
  return `${place(at)}@${at.offset}`;
}

function seen(record: SeenRecord): string {
  return `${position(record)} ${record.value}`;
}
