/** A violation by hand: the smallest history that shows it, and beside it the nearest that does not. */
import type { HistoryOptions } from '../events.js';
import type { Script } from '../script.js';
import type { ViolationKind } from '../violations.js';

export interface Case {
  readonly kind: ViolationKind;
  /** Follows "reports <kind> when". */
  readonly when: string;
  /** Shows this violation once, and no other. */
  readonly bad: (script: Script) => void;
  /** Follows "no <kind> when". */
  readonly butNot: string;
  readonly good: (script: Script) => void;
  readonly options?: HistoryOptions;
}

/** Three records, acknowledged. */
export function abc(script: Script): void {
  for (const [offset, value] of ['a', 'b', 'c'].entries()) script.acked(offset, value);
}

/** Three records, acknowledged and seen. */
export function abcSeen(script: Script): void {
  abc(script);
  script.reads('first', 0);
  script.sees('first', [0, 'a'], [1, 'b'], [2, 'c']);
}
