import type { Chance } from '../../groups/simulation/chance.js';
import type { Timeline } from '../../groups/simulation/timeline.js';

const LOST = 0.02;
const DOUBLED = 0.05;

/** Nothing that was sent before a calm arrives later than this after its beginning. */
export const LONGEST_DELAY_MS = 300_000;

/** Loses messages, doubles them, and delays them, some by minutes. */
export class Network {
  /** Whether it is as good as networks mostly are. */
  isCalm = false;
  readonly #timeline: Timeline;
  readonly #chance: Chance;

  constructor(timeline: Timeline, chance: Chance) {
    this.#timeline = timeline;
    this.#chance = chance;
  }

  send(arrive: () => void): void {
    if (this.isCalm) {
      this.#timeline.after(this.#chance.between(1, 3), arrive);
      return;
    }
    if (!this.#chance.of(LOST)) this.#timeline.after(this.#delayMs(), arrive);
    if (this.#chance.of(DOUBLED)) this.#timeline.after(this.#delayMs(), arrive);
  }

  #delayMs(): number {
    if (this.#chance.of(0.95)) return this.#chance.between(1, 10);
    return this.#chance.of(0.8) ? this.#chance.between(1, 5_000) : this.#chance.between(1, LONGEST_DELAY_MS);
  }
}
