/** What the groups of one shard come to: its part of what is bounded over all of them. */
import type { GroupState } from './group-types.js';

/** Over all shards; offsets in the units of `unitsOf`. */
export interface Totals {
  groups: number;
  /** Committed offsets that are durable. */
  offsets: number;
  /** Those on their way that are not there yet; one that is on its way twice counts twice. */
  coming: number;
}

export class ShardCounts {
  readonly #totals: Totals;
  members = 0;
  /** Topics and partitions kept in mind: what members are to hold, and what the groups began with. */
  places = 0;
  #coming = 0;

  constructor(totals: Totals) {
    this.#totals = totals;
  }

  groups(added: number): void {
    this.#totals.groups += added;
  }

  offsets(unitsAdded: number): void {
    this.#totals.offsets += unitsAdded;
  }

  expect(units: number): void {
    this.#coming += units;
    this.#totals.coming += units;
  }

  /** Nothing is on its way any more. */
  expectNothing(): void {
    this.expect(-this.#coming);
  }

  /** A group goes from one state to another; undefined: it is not served before, or after. */
  replace(before: GroupState | undefined, after: GroupState | undefined): void {
    this.members += (after?.members.size ?? 0) - (before?.members.size ?? 0);
    this.places += placesOf(after) - placesOf(before);
  }

  /** No group is served any more. */
  forgetStates(): void {
    this.members = 0;
    this.places = 0;
  }
}

function placesOf(state: GroupState | undefined): number {
  return state === undefined ? 0 : state.target.size + state.begun.size;
}
