/** The batches that `run` has taken and not worked off, partition by partition. */

import { Fifo } from '../fifo.js';
import type { BatchCursor } from '../record-batch.js';
import { ConsumedBatch, type ConsumedRecord } from './consumed.js';
import type { Holding } from './holding.js';

/** A record that is to be handled. */
export interface Task<K, V> {
  readonly record: ConsumedRecord<K, V>;
  readonly batch: ConsumedBatch<K, V>;
  /** Bytes of the key, one per character; null without one. */
  readonly key: string | null;
}

interface LaneOwner {
  /** A batch that had to be decompressed can be taken from. */
  readonly onReady: () => void;
  /** It cannot be opened. */
  readonly onFailure: (error: unknown) => void;
  /** A batch is worked off, or of no use any more. */
  readonly onDropped: (sizeInBytes: number) => void;
}

/**
 * The batches of one partition. Invariant: what is taken out has been handed out, in the sense of the partition's
 * progress, in the order of offsets.
 */
class Lane<K, V> {
  readonly #batches = new Fifo<ConsumedBatch<K, V>>();
  readonly #owner: LaneOwner;
  #cursor: BatchCursor | undefined;
  #opening = false;

  constructor(owner: LaneOwner) {
    this.#owner = owner;
  }

  get isEmpty(): boolean {
    return this.#batches.length === 0;
  }

  push(batch: ConsumedBatch<K, V>): void {
    this.#batches.push(batch);
  }

  /** The next record; undefined when there is none now. @throws LogError CORRUPT_MESSAGE, INVALID_RECORD */
  take(mayHandOut: (batch: ConsumedBatch<K, V>) => boolean): Task<K, V> | undefined {
    for (;;) {
      const batch = this.#batches.peek();
      if (batch === undefined || this.#opening) return undefined;
      if (!mayHandOut(batch)) this.#drop();
      else if (this.#cursor === undefined) this.#open(batch);
      else if (this.#cursor.next()) return this.#taskOf(batch, this.#cursor);
      else {
        ConsumedBatch.originOf(batch).progress.skipTo(ConsumedBatch.endOf(batch));
        this.#drop();
      }
    }
  }

  #taskOf(batch: ConsumedBatch<K, V>, cursor: BatchCursor): Task<K, V> {
    const record = batch.decode(cursor);
    ConsumedBatch.originOf(batch).progress.handOut(record.offset, record.offset + 1);
    return { record, batch, key: cursor.key?.toString('latin1') ?? null };
  }

  #open(batch: ConsumedBatch<K, V>): void {
    const { progress } = ConsumedBatch.originOf(batch);
    progress.noteLeaderEpoch(batch.baseOffset, ConsumedBatch.leaderEpochOf(batch));
    const opened = batch.cursor();
    if (!(opened instanceof Promise)) {
      this.#cursor = opened;
      return;
    }
    this.#opening = true;
    opened.then((cursor) => {
      this.#opening = false;
      this.#cursor = cursor;
      this.#owner.onReady();
    }, this.#owner.onFailure);
  }

  #drop(): void {
    const batch = this.#batches.shift();
    this.#cursor = undefined;
    if (batch !== undefined) this.#owner.onDropped(batch.sizeInBytes);
  }
}

/** Lanes of all partitions, asked in turn. */
export class Lanes<K, V> {
  readonly #lanes = new Map<Holding<K, V>, Lane<K, V>>();
  readonly #mayHandOut: (batch: ConsumedBatch<K, V>) => boolean;
  readonly #owner: LaneOwner;
  #sizeInBytes = 0;

  /**
   * @param onReady called when a batch that had to be decompressed can be taken from
   * @param onFailure called when it cannot be opened
   */
  constructor(
    mayHandOut: (batch: ConsumedBatch<K, V>) => boolean,
    onReady: () => void,
    onFailure: (error: unknown) => void,
  ) {
    this.#mayHandOut = mayHandOut;
    const onDropped = (sizeInBytes: number): void => {
      this.#sizeInBytes -= sizeInBytes;
    };
    this.#owner = { onReady, onFailure, onDropped };
  }

  /** Of the batches that are not worked off, as they are stored. */
  get sizeInBytes(): number {
    return this.#sizeInBytes;
  }

  push(batch: ConsumedBatch<K, V>): void {
    const { holding } = ConsumedBatch.originOf(batch);
    const lane = this.#lanes.get(holding) ?? new Lane<K, V>(this.#owner);
    this.#lanes.set(holding, lane);
    lane.push(batch);
    this.#sizeInBytes += batch.sizeInBytes;
  }

  /**
   * The next record of a partition that is not busy; the partition then comes last.
   * @throws LogError CORRUPT_MESSAGE, INVALID_RECORD
   */
  take(isBusy: (holding: Holding<K, V>) => boolean): Task<K, V> | undefined {
    for (const [holding, lane] of this.#lanes) {
      if (isBusy(holding)) continue;
      const task = lane.take(this.#mayHandOut);
      if (task === undefined && !lane.isEmpty) continue;
      this.#lanes.delete(holding);
      if (task === undefined) continue;
      this.#lanes.set(holding, lane);
      return task;
    }
    return undefined;
  }
}
