import type { ProducerEntry } from './producer-entry.js';
import type { OpenTransaction } from './types.js';

/** A transaction whose marker is in the log, but perhaps not durable yet. */
interface EndedTransaction {
  readonly firstOffset: number;
  readonly markerOffset: number;
}

/**
 * The transactions of a partition that its readers must wait for: those that have no marker, as entries of their
 * producers in the order of their first offsets, and those whose marker a power cut could still take back.
 */
export class OpenTransactions {
  /** Invariant: every entry has a transaction; iteration goes by its first offset, because they are added in that order. */
  #entries = new Map<number, ProducerEntry>();
  /** In the order of their markers. */
  readonly #ended: EndedTransaction[] = [];
  /** The least first offset of those. */
  #leastEnded: number = Number.POSITIVE_INFINITY;

  get count(): number {
    return this.#entries.size;
  }

  get(producerId: number): ProducerEntry | undefined {
    return this.#entries.get(producerId);
  }

  entries(): IterableIterator<ProducerEntry> {
    return this.#entries.values();
  }

  list(): OpenTransaction[] {
    const found: OpenTransaction[] = [];
    for (const { transaction } of this.#entries.values()) if (transaction !== undefined) found.push(transaction);
    return found;
  }

  /** @param entry with a transaction: the one that its producer has here already, or a newer one than any other here */
  set(entry: ProducerEntry): void {
    const before = this.#entries.get(entry.producerId);
    const isOther = before?.transaction?.firstOffset !== entry.transaction?.firstOffset;
    if (before !== undefined && isOther) this.#entries.delete(entry.producerId);
    this.#entries.set(entry.producerId, entry);
  }

  delete(producerId: number): void {
    this.#entries.delete(producerId);
  }

  clear(): void {
    this.#entries.clear();
    this.#ended.length = 0;
    this.#leastEnded = Number.POSITIVE_INFINITY;
  }

  /** To be called when entries were put back, perhaps out of their order, and ends were taken back. */
  afterUndo(): void {
    this.#findLeastEnded();
    const sorted = [...this.#entries].sort(([, a], [, b]) => firstOffsetOf(a) - firstOffsetOf(b));
    this.#entries = new Map(sorted);
  }

  /** First offset of the oldest one without a marker; Infinity when there is none. */
  get firstOffset(): number {
    if (this.#entries.size === 0) return Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) return firstOffsetOf(entry);
    return Number.POSITIVE_INFINITY;
  }

  ended(firstOffset: number, markerOffset: number): void {
    this.#ended.push({ firstOffset, markerOffset });
    this.#leastEnded = Math.min(this.#leastEnded, firstOffset);
  }

  /** Takes the newest end back; `afterUndo` is to follow. */
  undoEnded(): void {
    this.#ended.pop();
  }

  /** Nothing below can be taken back any more. @param durableOffset never below that of an earlier call */
  settle(durableOffset: number): void {
    const first = this.#ended[0];
    if (first === undefined || first.markerOffset >= durableOffset) return;
    const kept = this.#ended.findIndex(({ markerOffset }) => markerOffset >= durableOffset);
    this.#ended.splice(0, kept < 0 ? this.#ended.length : kept);
    this.#findLeastEnded();
  }

  #findLeastEnded(): void {
    this.#leastEnded = Number.POSITIVE_INFINITY;
    for (const { firstOffset } of this.#ended) this.#leastEnded = Math.min(this.#leastEnded, firstOffset);
  }

  /** @param highWatermark never below that of an earlier call */
  firstUnstableOffset(highWatermark: number): number {
    this.settle(highWatermark);
    return Math.min(this.firstOffset, this.#leastEnded);
  }
}

function firstOffsetOf({ transaction }: ProducerEntry): number {
  return transaction?.firstOffset ?? Number.POSITIVE_INFINITY;
}
