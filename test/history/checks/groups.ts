/** Invariants 8 and 10: what a group committed holds, and a partition has one owner in it. */
import type { AssignEvent, HistoryEvent, Position } from '../events.js';
import type { HistoryIndex, Partition } from '../history-index.js';
import { type Evidence, evidenceAt, type Violation } from '../violations.js';

/** The event that set something, by its index. */
interface Commit {
  readonly offset: number;
  readonly at: number;
}

interface Owner {
  readonly process: string;
  readonly since: number;
}

interface Group {
  readonly commits: Map<Partition, Commit>;
  readonly owners: Map<Partition, Owner>;
}

export function checkGroups(index: HistoryIndex): Violation[] {
  const check = new GroupCheck(index);
  for (const [at, event] of index.events.entries()) check.take(event, at);
  return check.violations;
}

class GroupCheck {
  readonly violations: Violation[] = [];
  readonly #index: HistoryIndex;
  readonly #groups = new Map<string, Group>();
  /** The group that a process is a member of. */
  readonly #memberships = new Map<string, Group>();

  constructor(index: HistoryIndex) {
    this.#index = index;
  }

  take(event: HistoryEvent, at: number): void {
    switch (event.kind) {
      case 'assign':
        if (event.group !== undefined) this.#assign(event, event.group, at);
        return;
      case 'revoke':
        for (const place of event.places) this.#release(event.process, this.#index.place(place));
        return;
      case 'crash':
        if (event.process !== undefined) this.#releaseAll(event.process);
        return;
      case 'commit':
      case 'reset-offsets':
        this.#commit(event.group, event.positions, at);
        return;
      default:
        return;
    }
  }

  #assign({ process, positions }: AssignEvent, name: string, at: number): void {
    const group = this.#group(name);
    this.#memberships.set(process, group);
    for (const { offset, ...place } of positions) {
      const partition = this.#index.place(place);
      const commit = group.commits.get(partition);
      if (commit !== undefined && offset < commit.offset) {
        this.violations.push({
          kind: 'lost-commit',
          message: `group ${name} had committed ${partition}@${commit.offset}, yet ${process} began at ${offset}`,
          evidence: this.#evidence(partition, commit.at, at),
        });
      }
      const owner = group.owners.get(partition);
      if (owner !== undefined && owner.process !== process) {
        this.violations.push({
          kind: 'two-owners',
          message: `${partition} was assigned to ${process} while ${owner.process} of group ${name} had it`,
          evidence: this.#evidence(partition, owner.since, at),
        });
      }
      group.owners.set(partition, { process, since: at });
    }
  }

  #release(process: string, partition: Partition): void {
    const owners = this.#memberships.get(process)?.owners;
    if (owners?.get(partition)?.process === process) owners.delete(partition);
  }

  #releaseAll(process: string): void {
    const partitions = this.#memberships.get(process)?.owners.keys() ?? [];
    for (const partition of [...partitions]) this.#release(process, partition);
  }

  #commit(name: string, positions: readonly Position[], at: number): void {
    const { commits } = this.#group(name);
    for (const position of positions) commits.set(this.#index.place(position), { offset: position.offset, at });
  }

  #evidence(partition: Partition, ...indexes: number[]): Evidence[] {
    const points = indexes.map((at) => ({ at, of: { partition, offset: 0 } }));
    return evidenceAt(this.#index.events, points);
  }

  #group(name: string): Group {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = { commits: new Map(), owners: new Map() };
      this.#groups.set(name, group);
    }
    return group;
  }
}
