import type { Chance } from './chance.js';
import type { Timeline } from './timeline.js';

/** How bad a network is. Shares are of all messages, 0 to 1; times in ms. */
export interface NetworkFaults {
  readonly lost: number;
  readonly doubled: number;
  /** Of those that arrive within `usualMs`; most others do within `slowMs`, and some within `longestMs`. */
  readonly usual: number;
  readonly usualMs: number;
  readonly slowMs: number;
  /** Nothing that was sent before a calm arrives later than this after its beginning. */
  readonly longestMs: number;
}

/** Loses messages, doubles them, and delays them, which changes their order. */
export class Network {
  /** Whether it is as good as networks mostly are. */
  isCalm = false;
  readonly #timeline: Timeline;
  readonly #chance: Chance;
  readonly #faults: NetworkFaults;

  constructor(timeline: Timeline, chance: Chance, faults: NetworkFaults) {
    this.#timeline = timeline;
    this.#chance = chance;
    this.#faults = faults;
  }

  send(arrive: () => void): void {
    if (this.isCalm) {
      this.#timeline.after(this.#chance.between(1, 3), arrive);
      return;
    }
    if (!this.#chance.of(this.#faults.lost)) this.#timeline.after(this.#delayMs(), arrive);
    if (this.#chance.of(this.#faults.doubled)) this.#timeline.after(this.#delayMs(), arrive);
  }

  #delayMs(): number {
    const { usual, usualMs, slowMs, longestMs } = this.#faults;
    if (this.#chance.of(usual)) return this.#chance.between(1, usualMs);
    return this.#chance.between(1, this.#chance.of(0.8) ? slowMs : longestMs);
  }
}
