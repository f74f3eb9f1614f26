/** Reading what one partition of a topic keeps that holds a coordinator's state. */
import { nextOffsetOf, sizeInBytesOf } from '../../batch/layout.js';
import { openRecords } from '../../batch/records.js';
import type { Clock } from '../../core/clock.js';
import { errorMessage, LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import { Slices } from '../../core/slices.js';
import type { Partition } from '../../partition/partition.js';
import { UNKNOWN_RECORD } from './state-record.js';

/** Others get a turn after this. */
const SLICE_MS = 5;
const READ_BYTES = 1024 * 1024;

export interface StateLoadOptions {
  readonly partition: Partition;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

export interface StateReader<R> {
  /** @throws Error saying what is wrong with a record that is of no Tidelog */
  readonly decode: (key: Buffer, value: Buffer | null) => R | typeof UNKNOWN_RECORD;
  readonly apply: (record: R) => void;
}

/**
 * Applies every record below the high watermark, in order.
 * @throws LogError CORRUPT_LOG naming partition and offset; why the partition cannot be read; the signal's reason
 */
export async function loadState<R>(options: StateLoadOptions, reader: StateReader<R>): Promise<void> {
  const { partition, clock, signal } = options;
  const load = new StateLoad(options, reader);
  const slices = new Slices(clock, SLICE_MS);
  let offset = partition.logStartOffset;
  while (offset < partition.highWatermark) {
    const { chunks, nextOffset } = await partition.read(offset, READ_BYTES);
    for (const chunk of chunks) await load.addAll(chunk, offset, slices);
    signal.throwIfAborted();
    if (nextOffset === offset) break;
    offset = nextOffset;
  }
}

class StateLoad<R> {
  readonly #options: StateLoadOptions;
  readonly #reader: StateReader<R>;
  #warned = false;

  constructor(options: StateLoadOptions, reader: StateReader<R>) {
    this.#options = options;
    this.#reader = reader;
  }

  /** @param chunk whole batches; records below `from` were read before */
  async addAll(chunk: Buffer, from: number, slices: Slices): Promise<void> {
    for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
      const batch = chunk.subarray(at, at + sizeInBytesOf(chunk, at));
      if (nextOffsetOf(batch, 0) <= from) continue;
      const cursor = await openRecords(batch);
      while (cursor.next()) {
        if (cursor.offset >= from) this.#add(cursor.offset, cursor.key, cursor.value);
        const pause = slices.step();
        if (pause !== undefined) await pause;
      }
    }
  }

  #add(offset: number, key: Buffer | null, value: Buffer | null): void {
    const record = this.#decode(offset, key, value);
    if (record === UNKNOWN_RECORD) this.#warn(offset);
    else this.#reader.apply(record);
  }

  #decode(offset: number, key: Buffer | null, value: Buffer | null): R | typeof UNKNOWN_RECORD {
    const { topic, index } = this.#options.partition;
    try {
      if (key === null) throw new Error('it has no key');
      return this.#reader.decode(key, value);
    } catch (error) {
      throw new LogError(
        'CORRUPT_LOG',
        `The record at offset ${offset} of ${topic}-${index} is none that Tidelog has written: ${errorMessage(error)}.`,
        { metadata: { topic, partition: index, offset }, cause: error },
      );
    }
  }

  #warn(offset: number): void {
    if (this.#warned) return;
    this.#warned = true;
    const { logger, partition } = this.#options;
    const at = { topic: partition.topic, partition: partition.index, offset };
    logger.warn(at, 'records of a newer version of Tidelog are left alone; this is the first');
  }
}
