import type { Clock } from '../core/clock.js';
import { LogError, toLogError } from '../core/errors.js';
import { toOffset } from '../core/types.js';
import type { Partition } from '../partition/partition.js';
import type { AbortedTransaction, Isolation } from '../partition/producers/types.js';
import type { Topics } from './topics.js';

/** Where to read one partition. */
export interface FetchPosition {
  readonly topic: string;
  /** The id the caller knows, or empty. */
  readonly topicId: string;
  readonly partition: number;
  readonly offset: number;
  /** Streams only: the reading ends here (exclusive). */
  readonly endOffset: number | undefined;
}

/** What was read from one partition, or why nothing was. */
export interface Fetched {
  readonly topic: string;
  readonly partition: number;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  readonly nextOffset: number;
  /** Whole record batches. */
  readonly chunks: readonly Buffer[];
  readonly byteLength: number;
  readonly error: LogError | undefined;
  /** Reading committed ends here; read after what was read, so that it may lie further. */
  readonly lastStableOffset: number;
  /** Reading committed: see `PartitionSlice`. */
  readonly aborted: readonly AbortedTransaction[];
}

/** One answer carries at most about this much, whatever is asked for. */
const MAX_FETCH_BYTES = 8 * 1024 * 1024;
/** Positions in one request. */
const MAX_POSITIONS = 10_000;
/** A long poll is answered after this long at the latest. */
const MAX_WAIT_MS = 60_000;

export interface FetchCommand {
  readonly positions: readonly FetchPosition[];
  readonly minBytes: number;
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly isolation: Isolation;
}

export interface StreamCommand {
  readonly positions: readonly FetchPosition[];
  /** Of one piece, about. */
  readonly maxBytes: number;
  readonly isolation: Isolation;
}

/** What an aborted transaction takes in an answer. */
const ABORTED_BYTES = 48;

/** What the answer weighs, in bytes. */
export function weightOfFetched({ byteLength, aborted }: Fetched): number {
  return byteLength + aborted.length * ABORTED_BYTES;
}

/**
 * Has a read done when there is room for what it gives, perhaps of fewer bytes. A read may be done again, when what it
 * gave was not wanted yet. The broker itself has no limit on what its callers hold.
 */
export type Admission = <T>(read: (maxBytes: number) => Promise<T>, bytesOf: (result: T) => number) => Promise<T>;

export interface FetcherOptions {
  readonly topics: Topics;
  readonly clock: Clock;
}

/** The fetch path between the listeners and the partitions: bounds, long poll, continuous reading. */
export class Fetcher {
  readonly #topics: Topics;
  readonly #clock: Clock;
  readonly #waiting = new Set<WakeUp>();
  #closed = false;

  constructor(options: FetcherOptions) {
    this.#topics = options.topics;
    this.#clock = options.clock;
  }

  /** Answers every long poll and ends every stream. */
  close(): void {
    this.#closed = true;
    for (const wake of this.#waiting) wake.ring();
  }

  /**
   * Reads once over all positions; waits for `minBytes` at most `maxWaitMs`. An error of one partition stands in its
   * place and answers at once.
   */
  async fetch(command: FetchCommand, signal: AbortSignal, admit: Admission): Promise<Fetched[]> {
    checkPositions(command.positions);
    const deadline = this.#clock.monotonic() + Math.min(command.maxWaitMs, MAX_WAIT_MS);
    for (;;) {
      const wake = this.#wakeUp(signal);
      // Listens before reading, so that nothing which arrives in between is missed.
      const stops = command.positions.map((position) => this.#listen(position, () => wake.ring()));
      try {
        const fetched = await admit(
          (maxBytes) => this.#readOnce(command, Math.min(command.maxBytes, maxBytes)),
          (parts) => sum(parts, weightOfFetched),
        );
        const bytes = sum(fetched, (part) => part.byteLength);
        const remainingMs = deadline - this.#clock.monotonic();
        const ready = bytes >= Math.max(command.minBytes, 1) || fetched.some((part) => part.error !== undefined);
        if (ready || remainingMs <= 0 || signal.aborted || this.#closed) return fetched;
        await this.#sleepUntil(wake, remainingMs);
      } finally {
        for (const stop of stops) stop();
        this.#waiting.delete(wake);
      }
    }
  }

  #wakeUp(signal: AbortSignal): WakeUp {
    const wake = new WakeUp(signal);
    this.#waiting.add(wake);
    return wake;
  }

  async #sleepUntil(wake: WakeUp, delayMs: number): Promise<void> {
    const timer = this.#clock.setTimer(delayMs, () => wake.ring());
    await wake.next();
    timer.cancel();
  }

  /** Calls `onAdvance` when there may be something new, or the partition is gone. Returns the unsubscriber. */
  #listen(position: FetchPosition, onAdvance: () => void): () => void {
    try {
      return this.#topics.partition(position.topic, position.topicId, position.partition).onAdvance(onAdvance);
    } catch (error) {
      // The read that follows reports it; anything but a LogError is a defect.
      if (!(error instanceof LogError)) throw error;
      return () => {};
    }
  }

  async #readOnce({ positions, isolation }: FetchCommand, maxBytes: number): Promise<Fetched[]> {
    let remaining = Math.min(Math.max(maxBytes, 1), MAX_FETCH_BYTES);
    const fetched: Fetched[] = [];
    for (const position of positions) {
      if (remaining <= 0) break;
      const part = await this.#read(position, position.offset, remaining, isolation);
      remaining -= part.byteLength;
      fetched.push(part);
    }
    return fetched;
  }

  async #read(position: FetchPosition, offset: number, maxBytes: number, isolation: Isolation): Promise<Fetched> {
    let partition: Partition | undefined;
    try {
      partition = this.#topics.partition(position.topic, position.topicId, position.partition);
      return describe(position, partition, await partition.read(toOffset(offset), maxBytes, isolation));
    } catch (error) {
      const nothing = { nextOffset: offset, chunks: [], byteLength: 0, aborted: [] };
      return { ...describe(position, partition, nothing), error: toLogError(error) };
    }
  }

  /**
   * Reads on over all positions in turn, waiting at the tails, until each has reached its end offset (or for ever),
   * was found unreadable (reported once), or `signal` aborts. Pulls nothing before it is asked for the next value:
   * the caller's pace is the back-pressure. Whatever was passed over is told by the offset of the next piece, also when
   * there is nothing in it to show.
   * @throws LogError BROKER_DRAINING when the broker stops before that
   */
  async *stream(
    command: StreamCommand,
    signal: AbortSignal,
    admit: Admission,
  ): AsyncGenerator<Fetched, void, undefined> {
    const { positions } = command;
    checkPositions(positions);
    const wake = this.#wakeUp(signal);
    const ready = new ReadyQueue(wake);
    const readings = positions.map((position) => ({
      position: this.#pinned(position),
      offset: position.offset,
      queued: false,
      done: false,
    }));
    const stops = readings.map((reading) => this.#listen(reading.position, () => ready.add(reading)));
    for (const reading of readings) ready.add(reading);
    let open = readings.length;
    try {
      while (open > 0) {
        const reading = ready.take();
        if (reading === undefined) await wake.next();
        if (signal.aborted) return;
        if (this.#closed) throw draining();
        if (reading === undefined) continue;
        const part = isAtEnd(reading) ? undefined : await this.#advance(reading, command, admit);
        if (signal.aborted) return;
        if (part !== undefined) yield part;
        if (part?.error !== undefined || isAtEnd(reading)) {
          reading.done = true;
          open--;
        } else if (part !== undefined) ready.add(reading);
      }
    } finally {
      for (const stop of stops) stop();
      this.#waiting.delete(wake);
    }
  }

  /** Of a stream that names no topic id: reading must not go on in a topic that takes the place of this one. */
  #pinned(position: FetchPosition): FetchPosition {
    const topicId = position.topicId === '' ? this.#topics.idOf(position.topic) : undefined;
    return topicId === undefined ? position : { ...position, topicId };
  }

  /** Reads the next piece of one partition; undefined when there is nothing to say. */
  async #advance(reading: Reading, command: StreamCommand, admit: Admission): Promise<Fetched | undefined> {
    const chunkBytes = Math.min(Math.max(command.maxBytes, 1), MAX_FETCH_BYTES);
    const part = await admit((maxBytes) => {
      const { position, offset } = reading;
      return this.#read(position, offset, Math.min(chunkBytes, maxBytes), command.isolation);
    }, weightOfFetched);
    reading.offset = part.nextOffset;
    return part.byteLength > 0 || part.error !== undefined ? part : undefined;
  }
}

/** One partition of a stream and how far it has been read. */
interface Reading {
  readonly position: FetchPosition;
  offset: number;
  queued: boolean;
  done: boolean;
}

/** Partitions that may have something to read, in turn; each stands in it at most once. */
class ReadyQueue {
  readonly #queue: Reading[] = [];
  readonly #wake: WakeUp;

  constructor(wake: WakeUp) {
    this.#wake = wake;
  }

  add(reading: Reading): void {
    if (reading.queued || reading.done) return;
    reading.queued = true;
    this.#queue.push(reading);
    this.#wake.ring();
  }

  take(): Reading | undefined {
    for (;;) {
      const reading = this.#queue.shift();
      if (reading === undefined) return undefined;
      reading.queued = false;
      if (!reading.done) return reading;
    }
  }
}

function sum(parts: readonly Fetched[], of: (part: Fetched) => number): number {
  return parts.reduce((total, part) => total + of(part), 0);
}

function isAtEnd({ position, offset }: Reading): boolean {
  return position.endOffset !== undefined && offset >= position.endOffset;
}

type Slice = Pick<Fetched, 'nextOffset' | 'chunks' | 'byteLength' | 'aborted'>;

function describe(position: FetchPosition, partition: Partition | undefined, slice: Slice): Fetched {
  return {
    topic: position.topic,
    partition: position.partition,
    highWatermark: partition?.highWatermark ?? -1,
    logStartOffset: partition?.logStartOffset ?? -1,
    nextOffset: slice.nextOffset,
    chunks: slice.chunks,
    byteLength: slice.byteLength,
    error: undefined,
    lastStableOffset: partition?.lastStableOffset ?? -1,
    aborted: slice.aborted,
  };
}

function checkPositions(positions: readonly FetchPosition[]): void {
  if (positions.length === 0) throw new LogError('INVALID_REQUEST', 'A fetch names at least one position.');
  if (positions.length > MAX_POSITIONS) {
    throw new LogError('INVALID_REQUEST', `A fetch names at most ${MAX_POSITIONS} positions, not ${positions.length}.`);
  }
}

function draining(): LogError {
  return new LogError('BROKER_DRAINING', 'The broker is stopping. Read on from the next offset after it is back.');
}

/** A bell that may be rung many times before anybody waits; waiting takes all rings so far. */
class WakeUp {
  readonly #signal: AbortSignal;
  #rung = false;
  #wake: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves at the next ring, at once if there was one since the last wait, or when the signal aborts. */
  async next(): Promise<void> {
    if (!this.#rung && !this.#signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#signal.removeEventListener('abort', done);
          this.#wake = undefined;
          resolve();
        };
        this.#wake = done;
        this.#signal.addEventListener('abort', done, { once: true });
      });
    }
    this.#rung = false;
  }
}
