/** Checks of what each reader was handed in turn: all that it must see, forward only (invariants 1, 4, 7, 11). */
import type { AssignEvent, EndEvent, HistoryEvent, PollEvent } from '../events.js';
import { type Entry, type HistoryIndex, type Isolation, NEVER, type Partition } from '../history-index.js';
import { evidenceAt, type Point, pointsOf, type Violation } from '../violations.js';
import { type EntryList, firstFrom, type MustSee } from './must-see.js';

/** A record by the poll that showed it. */
interface Sighting {
  readonly offset: number;
  readonly at: number;
}

/** A partition as one process reads it, from its assignment on. */
interface Reading {
  /** What this reader must see. */
  readonly entries: EntryList;
  /** The place in `entries` of the first at or above `position`. */
  next: number;
  /** The next offset. */
  position: number;
  /** What set the position last: an assignment, a poll, an end. */
  since: Point;
  /** The assignment, NEVER if it is not in the history. */
  readonly assignedAt: number;
  /** The highest record that readers like this one had seen when it was assigned; unknown without an assignment. */
  readonly seenBefore: Sighting | undefined;
}

/** The last end that a reader came to that had been assigned the partition in the history. */
interface LastEnd {
  readonly event: EndEvent;
  readonly at: number;
  readonly assignedAt: number;
}

export function checkReading(index: HistoryIndex, mustSee: MustSee): Violation[] {
  const check = new ReadingCheck(index, mustSee);
  for (const [at, event] of index.events.entries()) check.take(event, at);
  check.finish();
  return check.violations;
}

class ReadingCheck {
  readonly violations: Violation[] = [];
  readonly #index: HistoryIndex;
  readonly #mustSee: MustSee;
  readonly #readers = new Map<string, Map<Partition, Reading>>();
  /** Records below this may be gone. */
  readonly #trimmed = new Map<Partition, number>();
  readonly #highest: Readonly<Record<Isolation, Map<Partition, Sighting>>> = {
    read_committed: new Map(),
    read_uncommitted: new Map(),
  };
  readonly #lastEnds = new Map<Partition, LastEnd>();
  /** Each is reported once, however many readers miss it. */
  readonly #reported = new Set<Entry>();

  constructor(index: HistoryIndex, mustSee: MustSee) {
    this.#index = index;
    this.#mustSee = mustSee;
  }

  take(event: HistoryEvent, at: number): void {
    switch (event.kind) {
      case 'assign':
        this.#assign(event, at);
        return;
      case 'poll':
        this.#poll(event, at);
        return;
      case 'end':
        this.#end(event, at);
        return;
      case 'revoke':
        for (const place of event.places) this.#readers.get(event.process)?.delete(this.#index.place(place));
        return;
      case 'crash':
        if (event.process !== undefined) this.#readers.delete(event.process);
        return;
      case 'trim': {
        const partition = this.#index.place(event.before);
        this.#trimmed.set(partition, Math.max(event.before.offset, this.#trimmedBelow(partition)));
        return;
      }
      default:
        return;
    }
  }

  /** When all events were taken: what nobody came to see. */
  finish(): void {
    for (const [partition, { event, at, assignedAt }] of this.#lastEnds) {
      const entries = this.#mustSee.by(this.#index.isolationOf(event.process), partition);
      for (let next = firstFrom(entries, event.end.offset); next < entries.length; next++) {
        const entry = entries[next]!;
        if (entry.polledAt !== NEVER || entry.ackedAt > assignedAt) continue;
        this.#report(entry, {
          kind: 'unseen',
          message: `nobody saw ${entry}: ${event.process}, which began later, found the end at ${event.end.offset}`,
          evidence: this.#evidence([...pointsOf(entry), { at: assignedAt, of: entry }, { at }]),
        });
      }
    }
  }

  #assign({ process, positions }: AssignEvent, at: number): void {
    for (const position of positions) {
      const partition = this.#index.place(position);
      this.#start(process, partition, position.offset, at);
    }
  }

  #start(process: string, partition: Partition, position: number, assignedAt: number): Reading {
    const isolation = this.#index.isolationOf(process);
    const entries = this.#mustSee.by(isolation, partition);
    const reading: Reading = {
      entries,
      next: firstFrom(entries, position),
      position,
      since: { at: assignedAt, of: { partition, offset: position } },
      assignedAt,
      seenBefore: assignedAt === NEVER ? undefined : this.#highest[isolation].get(partition),
    };
    let readings = this.#readers.get(process);
    if (readings === undefined) {
      readings = new Map();
      this.#readers.set(process, readings);
    }
    readings.set(partition, reading);
    return reading;
  }

  #poll({ process, records, isolation = 'read_committed', unordered }: PollEvent, at: number): void {
    if (unordered) return;
    for (const { offset, ...place } of records) {
      const partition = this.#index.place(place);
      const reading = this.#readers.get(process)?.get(partition) ?? this.#start(process, partition, offset, NEVER);
      const here: Point = { at, of: { partition, offset } };
      if (offset < reading.position) {
        this.violations.push({
          kind: 'nonmonotonic-poll',
          message: `${process} was to read on from ${partition}@${reading.position} and was handed offset ${offset}`,
          evidence: this.#evidence([reading.since, here]),
        });
        reading.next = firstFrom(reading.entries, offset);
      } else {
        this.#passOver(process, reading, partition, offset, here);
      }
      if (reading.entries[reading.next]?.offset === offset) reading.next++;
      reading.position = offset + 1;
      reading.since = here;
      this.#raise('read_uncommitted', partition, offset, at);
      if (isolation === 'read_committed') this.#raise('read_committed', partition, offset, at);
    }
  }

  #end(event: EndEvent, at: number): void {
    const { process, end } = event;
    const partition = this.#index.place(end);
    const reading = this.#readers.get(process)?.get(partition);
    if (reading === undefined) return;
    if (reading.assignedAt !== NEVER) this.#lastEnds.set(partition, { event, at, assignedAt: reading.assignedAt });
    if (reading.seenBefore !== undefined && end.offset <= reading.seenBefore.offset) {
      this.#truncated(partition, reading.seenBefore, reading.assignedAt, { at });
    }
    if (end.offset < reading.position) return;
    this.#passOver(process, reading, partition, end.offset, { at });
    reading.position = end.offset;
    reading.since = { at };
  }

  /** The end lies at or below a record that was seen before: neither trims nor compaction move an end backward. */
  #truncated(partition: Partition, seen: Sighting, assignedAt: number, end: Point): void {
    const entry = partition.entries.get(seen.offset)!;
    this.#report(entry, {
      kind: 'lost-write',
      message: `${entry} was seen, and a reader that began later came to an end at or below it`,
      evidence: this.#evidence([
        { at: entry.attempt?.sentAt ?? NEVER },
        { at: seen.at, of: entry },
        { at: assignedAt, of: entry },
        end,
      ]),
    });
  }

  /** The reader comes from its position to `offset` without a record between. */
  #passOver(process: string, reading: Reading, partition: Partition, offset: number, here: Point): void {
    const { entries } = reading;
    const trimmed = this.#trimmedBelow(partition);
    if (entries[reading.next] !== undefined && entries[reading.next]!.offset < trimmed) {
      reading.next = firstFrom(entries, Math.min(trimmed, offset));
    }
    for (; reading.next < entries.length && entries[reading.next]!.offset < offset; reading.next++) {
      const entry = entries[reading.next]!;
      this.#report(entry, {
        ...missed(process, reading, entry, offset),
        evidence: this.#evidence([...pointsOf(entry), ...rest(entry), reading.since, here]),
      });
    }
  }

  #raise(isolation: Isolation, partition: Partition, offset: number, at: number): void {
    const highest = this.#highest[isolation];
    if (offset > (highest.get(partition)?.offset ?? -1)) highest.set(partition, { offset, at });
  }

  #trimmedBelow(partition: Partition): number {
    return this.#trimmed.get(partition) ?? 0;
  }

  #report(entry: Entry, violation: Violation): void {
    if (this.#reported.has(entry)) return;
    this.#reported.add(entry);
    this.violations.push(violation);
  }

  #evidence(points: readonly Point[]): Violation['evidence'] {
    return evidenceAt(this.#index.events, points);
  }
}

/** What it means that a reader came to `offset` without the entry. */
function missed(
  process: string,
  { position }: Reading,
  entry: Entry,
  offset: number,
): Pick<Violation, 'kind' | 'message'> {
  if (entry.polledAt !== NEVER) {
    const message = `${process} read from offset ${position} to ${offset} and was not handed ${entry}`;
    return { kind: 'poll-skip', message };
  }
  const torn = tornFrom(entry);
  if (torn !== undefined) {
    const message = `${torn} was seen, and ${process} read past ${entry} of the same transaction, which nobody ever saw`;
    return { kind: 'torn-transaction', message };
  }
  return { kind: 'lost-write', message: `${entry} was acknowledged, ${process} read past it, and nobody ever saw it` };
}

/** A record of the entry's transaction that was seen, although nobody was told that it is committed. */
function tornFrom({ attempt }: Entry): Entry | undefined {
  const transaction = attempt?.transaction;
  return transaction?.result === 'committed' ? undefined : transaction?.seen;
}

function rest(entry: Entry): Point[] {
  const torn = entry.polledAt === NEVER ? tornFrom(entry) : undefined;
  return torn === undefined ? [] : [{ at: torn.polledCommittedAt, of: torn }];
}
