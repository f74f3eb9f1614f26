/** Notices that one piece of work takes longer than it may. */
import type { Clock, Timer } from '../../core/clock.js';
import type { TopicPartition } from './types.js';

/** What is being worked on for longest. */
export interface Work {
  /** Tells one piece of work from the next. */
  readonly id: unknown;
  readonly partition: TopicPartition;
  /** The first one of it. */
  readonly offset: number;
  /** When it began, by the monotonic clock in ms; undefined: when it is first seen. */
  readonly sinceMs?: number;
}

/** How many times within the limit it is looked: the deadline is noticed late by at most one of these parts. */
const LOOKS = 20;

/**
 * Looks now and then whether the oldest work is still the same as before, so that handing out a record costs nothing for
 * it.
 */
export class PollDeadline {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #oldest: () => Work | undefined;
  readonly #onPassed: (work: Work, ageMs: number) => void;
  #seen: unknown;
  /** When `#seen` was first seen, by the monotonic clock. */
  #seenSinceMs = 0;
  #timer: Timer | undefined;

  /** @param onPassed called at every look while the work is too old; must not throw */
  constructor(
    clock: Clock,
    limitMs: number,
    oldest: () => Work | undefined,
    onPassed: (work: Work, ageMs: number) => void,
  ) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#oldest = oldest;
    this.#onPassed = onPassed;
    this.#wait();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #wait(): void {
    this.#timer = this.#clock.setTimer(Math.max(1, this.#limitMs / LOOKS), () => {
      this.#wait();
      this.#look();
    });
  }

  #look(): void {
    const work = this.#oldest();
    const nowMs = this.#clock.monotonic();
    if (work === undefined || work.id !== this.#seen) {
      this.#seen = work?.id;
      this.#seenSinceMs = nowMs;
      return;
    }
    const ageMs = nowMs - (work.sinceMs ?? this.#seenSinceMs);
    if (ageMs >= this.#limitMs) this.#onPassed(work, ageMs);
  }
}
