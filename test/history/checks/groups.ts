/**
 * Invariants 7 to 10 of groups: what a group committed holds, it passes over nothing that it has not finished, and a
 * partition has one owner in it.
 */
import type { AssignEvent, CommitEvent, FinishEvent, HistoryEvent, PollEvent, Position } from '../events.js';
import type { HistoryIndex, Partition } from '../history-index.js';
import { type Evidence, evidenceAt, type Point, pointsOf, type Violation } from '../violations.js';
import { GroupProgress } from './group-progress.js';
import type { MustSee } from './must-see.js';

/** The event that set something, by its index. */
interface Commit {
  readonly offset: number;
  readonly at: number;
}

interface Owner {
  readonly process: string;
  readonly since: number;
}

/** A reset that was asked for and not acknowledged yet. */
interface AskedReset {
  readonly offset: number;
  /** Whether a member has begun there. */
  begun: boolean;
}

/** One partition in one group. */
interface Share {
  /** The highest offset committed since the last reset. */
  commit: Commit | undefined;
  owner: Owner | undefined;
  /** Undefined until a member begins. */
  progress: GroupProgress | undefined;
  /** Resets so far: what assignments from before the last one commit and finish counts for nothing. */
  resets: number;
  asked: AskedReset | undefined;
  /** By process: the resets there were when it was assigned the partition last. */
  readonly assigned: Map<string, number>;
}

export function checkGroups(index: HistoryIndex, mustSee: MustSee): Violation[] {
  const check = new GroupCheck(index, mustSee);
  for (const [at, event] of index.events.entries()) check.take(event, at);
  return check.violations;
}

class GroupCheck {
  readonly violations: Violation[] = [];
  readonly #index: HistoryIndex;
  readonly #mustSee: MustSee;
  readonly #groups = new Map<string, Map<Partition, Share>>();
  /** The group that a process is a member of. */
  readonly #memberships = new Map<string, string>();
  /** Records below this may be gone. */
  readonly #trimmed = new Map<Partition, number>();

  constructor(index: HistoryIndex, mustSee: MustSee) {
    this.#index = index;
    this.#mustSee = mustSee;
  }

  take(event: HistoryEvent, at: number): void {
    switch (event.kind) {
      case 'assign':
        if (event.group !== undefined) this.#assign(event, event.group, at);
        return;
      case 'poll':
        this.#poll(event, at);
        return;
      case 'finish':
        this.#finish(event);
        return;
      case 'revoke':
        for (const place of event.places) this.#release(event.process, this.#index.place(place));
        return;
      case 'crash':
        if (event.process !== undefined) this.#releaseAll(event.process);
        return;
      case 'commit':
        this.#commit(event, at);
        return;
      case 'ask-reset':
        this.#askReset(event.group, event.positions);
        return;
      case 'reset-offsets':
        this.#reset(event.group, event.positions, at);
        return;
      case 'trim': {
        const partition = this.#index.place(event.before);
        this.#trimmed.set(partition, Math.max(event.before.offset, this.#trimmed.get(partition) ?? 0));
        return;
      }
      default:
        return;
    }
  }

  #assign({ process, positions }: AssignEvent, group: string, at: number): void {
    this.#memberships.set(process, group);
    for (const { offset, ...place } of positions) {
      const partition = this.#index.place(place);
      const share = this.#share(group, partition);
      if (share.owner !== undefined && share.owner.process !== process) {
        const message = `${partition} was assigned to ${process} while ${share.owner.process} of group ${group} had it`;
        this.#report('two-owners', message, [at, share.owner.since], partition);
      }
      share.owner = { process, since: at };
      share.assigned.set(process, share.resets);
      if (share.asked === undefined) this.#begin(share, { process, group, partition, offset, at });
      else if (offset === share.asked.offset) this.#beginAtReset(share, share.asked, process, partition);
    }
  }

  #begin(share: Share, by: { process: string; group: string; partition: Partition; offset: number; at: number }): void {
    const { process, group, partition, offset, at } = by;
    const { commit } = share;
    if (commit !== undefined && offset < commit.offset) {
      const message = `group ${group} had committed ${partition}@${commit.offset}, yet ${process} began at ${offset}`;
      this.#report('lost-commit', message, [commit.at, at], partition);
    }
    if (share.progress === undefined) share.progress = this.#progressFrom(partition, process, offset);
    else this.#passOver(share.progress, partition, offset, at, `${process} of group ${group} began`);
  }

  /** The reset has come to this member before its acknowledgement came to the administrator. */
  #beginAtReset(share: Share, asked: AskedReset, process: string, partition: Partition): void {
    share.assigned.set(process, share.resets + 1);
    if (asked.begun) return;
    asked.begun = true;
    share.progress = this.#progressFrom(partition, process, asked.offset);
  }

  #poll({ process, records }: PollEvent, at: number): void {
    const group = this.#memberships.get(process);
    if (group === undefined) return;
    for (const record of records) {
      const partition = this.#index.place(record);
      const share = this.#share(group, partition);
      if (share.owner === undefined || share.owner.process === process) continue;
      const message = `${process} was handed ${partition}@${record.offset} while ${share.owner.process} of group ${group} had it`;
      const of = { partition, offset: record.offset };
      this.#violated('two-owners', message, [
        { at, of },
        { at: share.owner.since, of },
      ]);
      return;
    }
  }

  #finish({ process, records }: FinishEvent): void {
    const group = this.#memberships.get(process);
    if (group === undefined) return;
    for (const record of records) {
      const share = this.#share(group, this.#index.place(record));
      if (isCurrent(share, process)) share.progress?.finish(record.offset);
    }
  }

  #release(process: string, partition: Partition): void {
    const group = this.#memberships.get(process);
    if (group === undefined) return;
    const share = this.#share(group, partition);
    if (share.owner?.process === process) share.owner = undefined;
  }

  #releaseAll(process: string): void {
    const shares = this.#groups.get(this.#memberships.get(process) ?? '');
    for (const partition of shares?.keys() ?? []) this.#release(process, partition);
  }

  #commit({ process, group, positions }: CommitEvent, at: number): void {
    for (const { offset, ...place } of positions) {
      const partition = this.#index.place(place);
      const share = this.#share(group, partition);
      // Its acknowledgement may have been written down after that of the reset.
      if (!isCurrent(share, process)) continue;
      if (share.progress !== undefined) {
        this.#passOver(share.progress, partition, offset, at, `group ${group} committed ${partition}@${offset}`);
      }
      if (offset >= (share.commit?.offset ?? 0)) share.commit = { offset, at };
    }
  }

  #askReset(group: string, positions: readonly Position[]): void {
    for (const { offset, ...place } of positions) {
      this.#share(group, this.#index.place(place)).asked = { offset, begun: false };
    }
  }

  #reset(group: string, positions: readonly Position[], at: number): void {
    for (const { offset, ...place } of positions) {
      const partition = this.#index.place(place);
      const share = this.#share(group, partition);
      share.resets++;
      share.commit = { offset, at };
      if (share.asked?.begun !== true)
        share.progress = this.#progressFrom(partition, share.owner?.process ?? '', offset);
      share.asked = undefined;
    }
  }

  #progressFrom(partition: Partition, process: string, offset: number): GroupProgress {
    return new GroupProgress(this.#mustSee.by(this.#index.isolationOf(process), partition), offset);
  }

  #passOver(progress: GroupProgress, partition: Partition, offset: number, at: number, what: string): void {
    const entry = progress.passTo(offset, this.#trimmed.get(partition) ?? 0);
    if (entry === undefined) return;
    const points = [...pointsOf(entry), { at, of: { partition, offset } }];
    this.#violated('group-skip', `${what} above ${entry}, which no member has finished`, points);
  }

  #report(kind: Violation['kind'], message: string, indexes: readonly number[], partition: Partition): void {
    const points = indexes.map((at): Point => ({ at, of: { partition, offset: 0 } }));
    this.#violated(kind, message, points);
  }

  #violated(kind: Violation['kind'], message: string, points: readonly Point[]): void {
    const evidence: Evidence[] = evidenceAt(this.#index.events, points);
    this.violations.push({ kind, message, evidence });
  }

  #share(group: string, partition: Partition): Share {
    let shares = this.#groups.get(group);
    if (shares === undefined) {
      shares = new Map();
      this.#groups.set(group, shares);
    }
    let share = shares.get(partition);
    if (share === undefined) {
      const assigned = new Map<string, number>();
      share = { commit: undefined, owner: undefined, progress: undefined, resets: 0, asked: undefined, assigned };
      shares.set(partition, share);
    }
    return share;
  }
}

/** Whether what the process does with the partition is not from before a reset. */
function isCurrent({ assigned, resets, asked }: Share, process: string): boolean {
  const current = asked?.begun === true ? resets + 1 : resets;
  return (assigned.get(process) ?? current) >= current;
}
