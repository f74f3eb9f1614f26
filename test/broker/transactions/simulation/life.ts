import type { ModelGroup } from './group.js';
import type { ModelPartition } from './partition.js';
import type { StateLog } from './state-log.js';
import { LONGEST_STEP_MS, type World } from './world.js';

/** What a broker leaves to the next one. */
export interface Disk {
  readonly partitions: readonly ModelPartition[];
  readonly groups: readonly ModelGroup[];
  readonly log: StateLog;
  nextProducerId: number;
}

/** One run of the broker, from its start to its stop: what it has begun does not go on after that. */
export class Life {
  readonly #world: World;
  readonly #stop: () => void;
  #isOver = false;

  /** @param stop stops the broker */
  constructor(world: World, stop: () => void) {
    this.#world = world;
    this.#stop = stop;
  }

  end(): void {
    this.#isOver = true;
  }

  /** The next step, by default: the broker may stop in between. */
  later(run: () => void, delayMs: number = this.#world.chance.between(0, LONGEST_STEP_MS)): void {
    const { timeline, chance, weather } = this.#world;
    timeline.after(delayMs, () => {
      if (this.#isOver) return;
      if (weather.isStormy && chance.of(weather.stopsPerStep)) this.#stop();
      else run();
    });
  }
}
