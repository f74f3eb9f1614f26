/** Something that is going to happen, unless it is called off. */
export interface Appointment {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  isOff: boolean;
}

/** A virtual clock: what is due happens in the order of time, and in the order made when it is due together. */
export class Timeline {
  nowMs = 0;
  /** What has happened so far. */
  steps = 0;
  #order = 0;
  /** A binary heap. */
  readonly #heap: Appointment[] = [];

  after(delayMs: number, run: () => void): Appointment {
    const appointment = { atMs: this.nowMs + delayMs, order: this.#order++, run, isOff: false };
    this.#heap.push(appointment);
    this.#rise(this.#heap.length - 1);
    return appointment;
  }

  /** Lets the next thing happen. */
  step(): void {
    for (;;) {
      const next = this.#take();
      if (next === undefined) return;
      if (next.isOff) continue;
      this.nowMs = next.atMs;
      this.steps++;
      next.run();
      return;
    }
  }

  runUntil(atMs: number): void {
    while (this.#heap.length > 0 && this.#heap[0]!.atMs <= atMs) this.step();
    this.nowMs = Math.max(this.nowMs, atMs);
  }

  #take(): Appointment | undefined {
    const first = this.#heap[0];
    const last = this.#heap.pop();
    if (first === undefined || last === undefined || first === last) return first;
    this.#heap[0] = last;
    this.#sink(0);
    return first;
  }

  #rise(from: number): void {
    let index = from;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (isBefore(this.#heap[parent]!, this.#heap[index]!)) return;
      this.#swap(parent, index);
      index = parent;
    }
  }

  #sink(from: number): void {
    let index = from;
    for (;;) {
      let first = index;
      for (const child of [2 * index + 1, 2 * index + 2]) {
        if (child < this.#heap.length && isBefore(this.#heap[child]!, this.#heap[first]!)) first = child;
      }
      if (first === index) return;
      this.#swap(first, index);
      index = first;
    }
  }

  #swap(a: number, b: number): void {
    const kept = this.#heap[a]!;
    this.#heap[a] = this.#heap[b]!;
    this.#heap[b] = kept;
  }
}

function isBefore(a: Appointment, b: Appointment): boolean {
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs;
}
