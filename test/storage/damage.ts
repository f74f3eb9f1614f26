/** A log as it was before its files were damaged, and what readers of the damaged one may be told. */
import { baseOffsetOf, newestRecordTimeOf, nextOffsetOf } from '../../src/batch/layout.js';
import { partitionPoint } from '../../src/core/binary-search.js';
import { type ErrorMetadata, LogError } from '../../src/core/errors.js';
import { toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import type { DiskImage } from '../support/power-loss-disk.js';
import { END } from './support.js';

/** An image in which one file has other contents. */
export function withFile(image: DiskImage, path: string, contents: Buffer): DiskImage {
  return new Map(image).set(path, contents);
}

export function withBitFlipped(bytes: Buffer, bit: number): Buffer {
  const flipped = Buffer.from(bytes);
  flipped[bit >> 3]! ^= 1 << (bit & 7);
  return flipped;
}

/** A batch of the log as it was. */
export interface KnownBatch {
  readonly baseOffset: number;
  readonly nextOffset: number;
  readonly bytes: Buffer;
  readonly timestampMs: number;
}

export function knownBatch(bytes: Buffer): KnownBatch {
  const baseOffset = baseOffsetOf(bytes, 0);
  return { baseOffset, nextOffset: nextOffsetOf(bytes, 0), bytes, timestampMs: newestRecordTimeOf(bytes, 0) };
}

/** Bytes or offsets, `[from, to)`. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** What reading a log, from an offset to its end, came to. */
export interface Reading {
  /** Offsets that were refused as corrupt. */
  readonly lost: readonly Range[];
  /** Files that the refusals named. */
  readonly files: ReadonlySet<unknown>;
}

/**
 * Holds what a log answers against what it held. Throws an error that says what is wrong; no `expect`, for there are
 * tens of thousands of states to look at.
 */
export class KnownLog {
  readonly batches: readonly KnownBatch[];
  readonly startOffset: number;
  readonly endOffset: number;

  constructor(batches: readonly KnownBatch[], startOffset = 0) {
    this.batches = batches;
    this.startOffset = startOffset;
    this.endOffset = batches[batches.length - 1]!.nextOffset;
  }

  /** The batch in which offset `offset` lies, or the first one behind a hole. */
  batchAt(offset: number): KnownBatch | undefined {
    return this.batches[partitionPoint(this.batches.length, (at) => this.batches[at]!.nextOffset <= offset)];
  }

  /** Reads from `from` to the end: the bytes must be those that were, or refused as corrupt. */
  async read(log: PartitionLog, from: number, maxBytes: number = 64 * 1024): Promise<Reading> {
    const lost: Range[] = [];
    const files = new Set<unknown>();
    let offset = from;
    while (offset < this.endOffset) {
      try {
        offset = await this.#readOnce(log, offset, maxBytes);
      } catch (error) {
        const metadata = corruptionIn(error);
        const next = Number(metadata.next_valid_offset);
        if (!(next > offset)) throw new Error(`no way on behind offset ${offset}`, { cause: error });
        files.add(metadata.file);
        lost.push({ from: offset, to: next });
        offset = next;
      }
    }
    return { lost, files };
  }

  async #readOnce(log: PartitionLog, offset: number, maxBytes: number): Promise<number> {
    const { chunks, nextOffset } = await log.read(toOffset(offset), END, maxBytes);
    let at = offset;
    for (const chunk of chunks) {
      for (let position = 0; position < chunk.length; ) {
        const batch = this.batchAt(at);
        if (!batch?.bytes.equals(chunk.subarray(position, position + batch.bytes.length))) {
          throw new Error(`other bytes are served at offset ${at}`);
        }
        position += batch.bytes.length;
        at = batch.nextOffset;
      }
    }
    if (at !== nextOffset || at === offset)
      throw new Error(`a read at ${offset} says ${nextOffset} where ${at} is next`);
    return nextOffset;
  }

  /**
   * Looks a time up: the answer must be the first batch that reaches it.
   * @param lost offsets of which nothing needs to be known
   */
  async lookUp(log: PartitionLog, timestampMs: number, lost?: Range): Promise<void> {
    const rightAnswers = this.#firstReaching(timestampMs, lost);
    const answer = await log.batchForTime(timestampMs);
    if (rightAnswers.some((right) => right === answer)) return;
    throw new Error(`the batch for time ${timestampMs} is ${answer}, not ${rightAnswers.join(' or ')}`);
  }

  #firstReaching(timestampMs: number, lost: Range | undefined): readonly (number | undefined)[] {
    const reaching = this.batches.filter((batch) => batch.timestampMs >= timestampMs);
    const intact = reaching.filter(({ baseOffset }) => !lost || baseOffset < lost.from || baseOffset >= lost.to);
    return [reaching[0], intact[0]].map((batch) => batch && Math.max(batch.baseOffset, this.startOffset));
  }

  /** Everything must be as it was. */
  async checkWhole(log: PartitionLog): Promise<void> {
    this.checkEnds(log);
    const middle = this.batches[this.batches.length >> 1]!;
    await this.lookUp(log, middle.timestampMs);
    await this.lookUp(log, middle.timestampMs + 1);
    for (const from of [middle.baseOffset, this.startOffset]) {
      const { lost } = await this.read(log, from);
      if (lost.length > 0) throw new Error(`offsets ${JSON.stringify(lost)} are refused, but nothing is damaged`);
    }
  }

  /** The log must begin where it did and not end earlier. */
  checkEnds(log: PartitionLog): void {
    if (log.startOffset !== this.startOffset) throw new Error(`the log starts at ${log.startOffset}`);
    if (log.endOffset < this.endOffset) throw new Error(`the log ends at ${log.endOffset}, not at ${this.endOffset}`);
  }

  /** The batch must be refused, from whichever of its offsets it is read, and everything else be as it was. */
  async checkAllBut(log: PartitionLog, damaged: KnownBatch, file: string): Promise<void> {
    this.checkEnds(log);
    const lost = { from: damaged.baseOffset, to: damaged.nextOffset };
    await this.lookUp(log, damaged.timestampMs, lost);
    await this.#checkRefused(log, damaged.nextOffset - 1, file);
    await this.#checkLost(log, damaged, file);
  }

  async #checkRefused(log: PartitionLog, offset: number, file: string): Promise<void> {
    const failure = await log.read(toOffset(offset), END, 1).then(
      () => new Error(`offset ${offset} is served`),
      (error: unknown) => error,
    );
    const metadata = corruptionIn(failure);
    if (metadata.file !== file || Number(metadata.offset) !== offset) {
      throw new Error(`the refusal of offset ${offset} says ${JSON.stringify(metadata)}`);
    }
  }

  async #checkLost(log: PartitionLog, damaged: KnownBatch, file: string): Promise<void> {
    const { lost, files } = await this.read(log, this.startOffset);
    if (lost.length === 0) throw new Error('nothing is refused');
    for (const range of lost) {
      const other = this.batches.find((batch) => batch !== damaged && overlaps(batch, range));
      if (other) throw new Error(`the intact batch at ${other.baseOffset} is refused too`);
    }
    if (!files.has(file)) throw new Error(`the refusal names ${String([...files][0])}`);
  }
}

function overlaps({ baseOffset, nextOffset }: KnownBatch, { from, to }: Range): boolean {
  return baseOffset < to && nextOffset > from;
}

function corruptionIn(error: unknown): ErrorMetadata {
  if (!(error instanceof LogError) || error.reason !== 'CORRUPT_LOG') throw error;
  return error.metadata;
}

/** Adds to what is thrown in `work` which state was looked at. */
export async function inState(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new Error(`${what}: ${String(error)}`, { cause: error });
  }
}
