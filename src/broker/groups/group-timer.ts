/** The one timer of a group: calls when a deadline of its state has come. */
import type { Clock, Timer } from '../../core/clock.js';

/** A timer that fires this late tells that the process stood still, and members could not be heard. */
const STANDSTILL_MS = 500;
/** What members then sent meanwhile is taken in before any session ends. */
const GRACE_MS = 1000;

export interface GroupTimerOptions {
  readonly clock: Clock;
  /** When a tick is next of use, by the monotonic clock; undefined: never. */
  readonly deadlineMs: () => number | undefined;
  readonly tick: () => void;
}

/**
 * Lazy: a deadline that moves away leaves the timer as it is, so that heartbeats, which do nothing but that, do not pay
 * for it; it looks again when it fires.
 */
export class GroupTimer {
  readonly #options: GroupTimerOptions;
  #timer: { readonly timer: Timer; readonly dueMs: number } | undefined;
  /** Whether a standstill was noticed and sessions were spared once. */
  #spared = false;
  #closed = false;

  constructor(options: GroupTimerOptions) {
    this.#options = options;
  }

  /** A deadline may have come nearer. */
  plan(): void {
    const deadlineMs = this.#options.deadlineMs();
    if (deadlineMs === undefined) this.#cancel();
    else this.#arm(deadlineMs);
  }

  #arm(dueMs: number): void {
    if (this.#closed || (this.#timer !== undefined && this.#timer.dueMs <= dueMs)) return;
    this.#cancel();
    const { clock } = this.#options;
    const delayMs = Math.max(1, Math.ceil(dueMs - clock.monotonic()));
    this.#timer = { dueMs, timer: clock.setTimer(delayMs, () => this.#fired(dueMs)) };
  }

  #fired(dueMs: number): void {
    this.#timer = undefined;
    const nowMs = this.#options.clock.monotonic();
    if (nowMs - dueMs > STANDSTILL_MS && !this.#spared) {
      this.#spared = true;
      this.#arm(nowMs + GRACE_MS);
      return;
    }
    this.#spared = false;
    const deadlineMs = this.#options.deadlineMs();
    if (deadlineMs === undefined) return;
    if (deadlineMs > nowMs) this.#arm(deadlineMs);
    else this.#options.tick();
  }

  #cancel(): void {
    this.#timer?.timer.cancel();
    this.#timer = undefined;
  }

  close(): void {
    this.#closed = true;
    this.#cancel();
  }
}
