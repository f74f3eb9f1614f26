/** What a reader of a compacted topic must end with after a crash. */

export interface Update {
  readonly sequence: number;
  readonly value: string | null;
}

/** The last value of each key, where each key belongs to one producer. */
export class Table {
  /** Keys with the last value acknowledged, or found after a kill. */
  readonly #settled = new Map<string, string | null>();
  /** What was sent later and has no answer, in order. */
  readonly #unanswered = new Map<string, Update[]>();

  send(key: string, update: Update): void {
    const waiting = this.#unanswered.get(key);
    if (waiting === undefined) this.#unanswered.set(key, [update]);
    else waiting.push(update);
  }

  /** What a producer sent before it to the same key lies before it in the log. */
  acknowledge(key: string, { sequence, value }: Update): void {
    const waiting = this.#unanswered.get(key) ?? [];
    if (!waiting.some((update) => update.sequence === sequence)) return;
    this.#settled.set(key, value);
    this.#unanswered.set(
      key,
      waiting.filter((update) => update.sequence > sequence),
    );
  }

  /** Compares with what a reader from the start ends with; from here on what it found counts. */
  compare(found: ReadonlyMap<string, string | null>): void {
    for (const key of new Set([...this.#settled.keys(), ...this.#unanswered.keys(), ...found.keys()])) {
      const waiting = this.#unanswered.get(key) ?? [];
      const allowed = [this.#settled.get(key) ?? null, ...waiting.map(({ value }) => value)];
      const actual = found.get(key) ?? null;
      if (!allowed.includes(actual)) {
        throw new Error(`key ${key}: the log ends with ${actual}, not with one of ${allowed.join(', ')}`);
      }
      this.#settled.set(key, actual);
    }
    this.#unanswered.clear();
  }

  /** Keys whose last record was a tombstone. */
  get deletedKeys(): string[] {
    return [...this.#settled].filter(([, value]) => value === null).map(([key]) => key);
  }
}
