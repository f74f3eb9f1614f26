/** Heartbeats that wait for news of their member. */
import type { Clock, Timer } from '../../core/clock.js';

/** One heartbeat that is held: it looks whether there is news each time it wakes. */
export class HeldHeartbeat {
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #signal: AbortSignal;
  #isReleased = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock, waitMs: number, signal: AbortSignal) {
    this.#clock = clock;
    this.#deadlineMs = clock.monotonic() + waitMs;
    this.#signal = signal;
  }

  /** Whether it is to be answered, news or not. */
  get isOver(): boolean {
    return this.#isReleased || this.#signal.aborted || this.#clock.monotonic() >= this.#deadlineMs;
  }

  /** There may be news. */
  wake(): void {
    this.#wake?.();
  }

  /** It is to be answered now. */
  release(): void {
    this.#isReleased = true;
    this.#wake?.();
  }

  /** Resolves when there may be news, or when it is over. */
  async next(): Promise<void> {
    let timer: Timer | undefined;
    const onAbort = (): void => this.#wake?.();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = this.#clock.setTimer(Math.max(0, this.#deadlineMs - this.#clock.monotonic()), resolve);
      this.#signal.addEventListener('abort', onAbort, { once: true });
    });
    this.#wake = undefined;
    timer?.cancel();
    this.#signal.removeEventListener('abort', onAbort);
  }
}

/** Of one group: one for each member at the most. */
export class HeldHeartbeats {
  readonly #held = new Map<string, HeldHeartbeat>();

  /** A newer heartbeat of the member releases the older one. */
  add(memberId: string, held: HeldHeartbeat): void {
    this.#held.get(memberId)?.release();
    this.#held.set(memberId, held);
  }

  remove(memberId: string, held: HeldHeartbeat): void {
    if (this.#held.get(memberId) === held) this.#held.delete(memberId);
  }

  wake(memberId: string): void {
    this.#held.get(memberId)?.wake();
  }

  wakeAll(): void {
    for (const held of this.#held.values()) held.wake();
  }

  releaseAll(): void {
    for (const held of this.#held.values()) held.release();
  }
}
