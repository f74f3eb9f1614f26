import type { LRUCache } from 'lru-cache';
import { partitionPoint } from '../../core/binary-search.js';
import type { Clock } from '../../core/clock.js';
import { toLogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import { partitionKey, toOffset } from '../../core/types.js';
import type { PartitionLog } from '../../storage/engine.js';
import type { AbortedEntry, AbortedTail } from './aborted-tail.js';
import { scanLog } from './log-scan.js';
import { ProducerBudget } from './producer-budget.js';
import { ProducerStates } from './producer-states.js';
import { type AbortedFile, decodeTxnIndex, encodeTxnIndex } from './txn-index.js';
import type { AbortedTransaction } from './types.js';

/** Others get a turn after this. */
const SLICE_MS = 5;

export interface AbortedIndexOptions {
  readonly topic: string;
  readonly log: PartitionLog;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly cache: LRUCache<string, readonly AbortedEntry[]>;
  /** Aborted transactions that are kept in memory; when there are as many, they go into a file. */
  readonly maxInMemory: number;
  /** The newest ones. */
  readonly tail: AbortedTail;
}

/**
 * The aborted transactions of a partition: the newest in memory, those before them in files, of each of which a summary is
 * in memory. What a file should hold is found in the log again when it is not there.
 */
export class AbortedIndex {
  readonly #options: AbortedIndexOptions;
  /** In the order of their markers. */
  #files: AbortedFile[] = [];
  /** Files that are being read, by first marker: those who need the same one share it. */
  readonly #reading = new Map<number, Promise<readonly AbortedEntry[]>>();

  constructor(options: AbortedIndexOptions) {
    this.#options = options;
  }

  /** Whether there is enough in memory to go into a file. */
  get isFull(): boolean {
    return this.#options.tail.count >= this.#options.maxInMemory;
  }

  get files(): readonly AbortedFile[] {
    return this.#files;
  }

  restore(files: readonly AbortedFile[]): void {
    this.#files = [...files];
  }

  /**
   * Those that may have something in [from, to), in the order of their markers.
   * @throws LogError RESOURCE_LIMIT, STORAGE_ERROR, CLOSED
   */
  async in(from: number, to: number): Promise<readonly AbortedTransaction[]> {
    const files = this.#filesFor(from, to);
    // Before anything is awaited, so that none is missed which goes into a file meanwhile.
    const newest = this.#options.tail.in(from, to);
    if (files.length === 0) return newest;
    const found: AbortedTransaction[] = [];
    for (const file of files) {
      const entries = await this.#entriesOf(file);
      for (let i = partitionPoint(entries.length, (k) => entries[k]!.lastOffset < from); i < entries.length; i++) {
        if (entries[i]!.firstOffset < to) found.push(entries[i]!);
      }
    }
    return [...found, ...newest];
  }

  #filesFor(from: number, to: number): AbortedFile[] {
    const found: AbortedFile[] = [];
    const files = this.#files;
    for (let i = partitionPoint(files.length, (k) => files[k]!.lastMarker < from); i < files.length; i++) {
      const file = files[i]!;
      if (file.leastOffset < to) found.push(file);
      // Whatever was aborted after this file began at or above it.
      if (file.lastStableOffset >= to) break;
    }
    return found;
  }

  /** Puts the older ones of those in memory into a file, if there are enough of them below `durableOffset`. */
  async spill(durableOffset: number): Promise<void> {
    const { tail, log, maxInMemory } = this.#options;
    while (tail.countBelow(durableOffset) >= maxInMemory) {
      const entries = tail.entries.slice(0, maxInMemory);
      const { file, bytes } = encodeTxnIndex(entries);
      try {
        await log.sideFiles.write('txnindex', toOffset(file.firstMarker), bytes);
      } catch (error) {
        // The memory is bounded all the same: what is in no file is found in the log.
        this.#warn(error, 'aborted transactions could not be written to a file; the log is read for them');
      }
      this.#files.push(file);
      // By offset, not by number: the log start may have passed some meanwhile.
      tail.dropFirst(tail.countBelow(file.lastMarker + 1));
    }
  }

  /** Forgets those that ended below the log start offset. */
  async dropBelow(startOffset: number): Promise<void> {
    const { tail } = this.#options;
    tail.dropFirst(tail.countBelow(startOffset));
    const count = partitionPoint(this.#files.length, (i) => this.#files[i]!.lastMarker < startOffset);
    if (count > 0) this.#files.splice(0, count);
    await this.removeForeign();
  }

  /** Removes files that are none of this index. */
  async removeForeign(): Promise<void> {
    const { sideFiles } = this.#options.log;
    const offsets = sideFiles.offsets('txnindex');
    if (offsets.length === 0) return;
    const own = new Set(this.#files.map(({ firstMarker }) => firstMarker));
    for (const offset of offsets.filter((each) => !own.has(each))) {
      try {
        await sideFiles.remove('txnindex', offset);
      } catch (error) {
        this.#warn(error, 'a file of aborted transactions could not be removed; it is tried again later');
      }
    }
  }

  async #entriesOf(file: AbortedFile): Promise<readonly AbortedEntry[]> {
    const { cache, log } = this.#options;
    const key = `${partitionKey(log.id)}/${file.firstMarker}`;
    const cached = cache.get(key);
    if (cached !== undefined) return cached;
    const underWay = this.#reading.get(file.firstMarker);
    if (underWay !== undefined) return await underWay;
    const reading = this.#read(file).finally(() => this.#reading.delete(file.firstMarker));
    this.#reading.set(file.firstMarker, reading);
    const entries = await reading;
    cache.set(key, entries);
    return entries;
  }

  async #read(file: AbortedFile): Promise<readonly AbortedEntry[]> {
    const { sideFiles } = this.#options.log;
    try {
      const bytes = await sideFiles.read('txnindex', toOffset(file.firstMarker));
      const entries = bytes === undefined ? undefined : decodeTxnIndex(file, bytes);
      if (entries !== undefined) return entries;
      this.#warn(undefined, 'a file of aborted transactions is missing or damaged; it is made anew from the log');
    } catch (error) {
      if (toLogError(error).reason !== 'STORAGE_ERROR') throw error;
      this.#warn(error, 'a file of aborted transactions cannot be read; it is made anew from the log');
    }
    return await this.#rebuild(file);
  }

  async #rebuild(file: AbortedFile): Promise<readonly AbortedEntry[]> {
    const entries = await this.#scan(file);
    const { log } = this.#options;
    const at = this.#files.indexOf(file);
    if (at >= 0 && entries.length === 0) this.#files.splice(at, 1);
    if (at < 0 || entries.length === 0) return entries;
    const rebuilt = encodeTxnIndex(entries);
    // Compaction may have left less to be found than there was; the name stays.
    this.#files[at] = { ...rebuilt.file, firstMarker: file.firstMarker };
    try {
      await log.sideFiles.write('txnindex', toOffset(file.firstMarker), rebuilt.bytes);
    } catch (error) {
      this.#warn(error, 'aborted transactions could not be written to a file; the log is read for them');
    }
    return entries;
  }

  /** What the log says of the transactions that were aborted in the range of a file. */
  async #scan({ firstMarker, lastMarker, leastOffset }: AbortedFile): Promise<readonly AbortedEntry[]> {
    const { topic, log, clock, maxInMemory } = this.#options;
    const budget = new ProducerBudget(Number.POSITIVE_INFINITY);
    const states = new ProducerStates({ topic, partition: log.id.partition, budget, expirationMs: 0 });
    const { aborted } = states;
    const visit = (buf: Buffer, at: number): void => {
      states.note(buf, at, 0);
      states.settle(Number.POSITIVE_INFINITY);
      if (aborted.count >= maxInMemory) aborted.dropFirst(aborted.countBelow(firstMarker));
    };
    const slices = new Slices(clock, SLICE_MS);
    await scanLog(log, { from: leastOffset, to: lastMarker + 1 }, slices, visit, (error) =>
      this.#warn(error, 'a damaged part of the log was left out when aborted transactions were looked for'),
    );
    aborted.dropFirst(aborted.countBelow(firstMarker));
    return aborted.entries;
  }

  #warn(error: unknown, message: string): void {
    const { topic, log, logger } = this.#options;
    logger.warn({ topic, partition: log.id.partition, ...(error === undefined ? {} : { err: error }) }, message);
  }
}
