/** Who reads which input: an assignment that changes, as the members of a consumer group have it. */
import type { Work } from './world.js';

interface Assignment {
  readonly transactionalId: string;
  /** Rises with each assignment. */
  readonly memberEpoch: number;
}

export class Inputs {
  readonly names: readonly string[];
  readonly #assignments = new Map<string, Assignment>();
  #lastEpoch = 0;

  constructor(names: readonly string[]) {
    this.names = names;
  }

  assign(input: string, transactionalId: string): void {
    this.#assignments.set(input, { transactionalId, memberEpoch: ++this.#lastEpoch });
  }

  assignedTo(transactionalId: string): Pick<Work, 'input' | 'memberEpoch'>[] {
    const own = [...this.#assignments].filter(([, assignment]) => assignment.transactionalId === transactionalId);
    return own.map(([input, { memberEpoch }]) => ({ input, memberEpoch }));
  }

  /** Whether who does the work has the input, and has had it since it began. */
  isCurrent({ input, memberEpoch }: Work): boolean {
    return this.#assignments.get(input)?.memberEpoch === memberEpoch;
  }
}
