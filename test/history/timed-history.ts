/** A history whose events come from several processes: they are put in order by the time at which they happened. */
import type { HistoryEvent } from './events.js';
import { History } from './history.js';

interface TimedEvent {
  readonly atUs: number;
  readonly event: HistoryEvent;
}

/** What events are written down in. */
export interface EventLog {
  /** @param atUs when it happened, by `nowUs`; now, if left out */
  add(event: HistoryEvent, atUs?: number): void;
}

/** The monotonic clock that all processes of the machine share, in microseconds. */
export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** Events of one source keep their order where their times are equal. */
export class TimedHistory extends History implements EventLog {
  readonly #timed: TimedEvent[] = [];

  override get events(): readonly HistoryEvent[] {
    return this.#timed.toSorted((a, b) => a.atUs - b.atUs).map(({ event }) => event);
  }

  override add(event: HistoryEvent, atUs: number = nowUs()): void {
    this.#timed.push({ atUs, event });
  }
}
