/** Finding out, when a partition is opened, what its producers have sent. */
import { baseOffsetOf } from '../../batch/layout.js';
import { LogError } from '../../core/errors.js';
import { Slices } from '../../core/slices.js';
import { scanLog } from './log-scan.js';
import { type ProducerContext, placeOf, SLICE_MS } from './producer-context.js';
import { decodeSnapshot, type SnapshotContents } from './snapshot.js';
import type { SnapshotPart } from './snapshot-part.js';

/** What a load has found. */
export interface LoadedProducers {
  /** Of the snapshot that was used; undefined: none was. */
  readonly snapshotOffset: number | undefined;
  /** Whether the log above it had something to add. */
  readonly replayed: boolean;
}

/**
 * Takes the newest snapshot that can be read, and what the log has above it; without a snapshot all of the log. Only
 * segments that matter are read, so that a log without producers costs nothing.
 * @throws LogError STORAGE_ERROR, RESOURCE_LIMIT, CLOSED
 */
export async function loadProducers(context: ProducerContext): Promise<LoadedProducers> {
  const slices = new Slices(context.clock, SLICE_MS);
  const snapshotOffset = await restoreNewest(context, slices);
  const replayed = await replayAbove(context, snapshotOffset ?? 0, slices);
  return { snapshotOffset, replayed };
}

async function restoreNewest(context: ProducerContext, slices: Slices): Promise<number | undefined> {
  const { log, logger } = context;
  const offsets = log.sideFiles.offsets('snapshot');
  for (const offset of [...offsets].reverse()) {
    // What was written of a log that lost its end says nothing of what takes its place.
    if (offset > log.endOffset) continue;
    try {
      const bytes = await log.sideFiles.read('snapshot', offset);
      if (bytes === undefined) continue;
      await restore(context, await decodeSnapshot(bytes, context.clock.now(), slices));
      return offset;
    } catch (error) {
      await forget(context);
      if (isPassing(error)) throw error;
      logger.warn(
        { ...placeOf(context), offset, err: error },
        'a snapshot of producers cannot be used; more of the log is read',
      );
    }
  }
  return undefined;
}

/** Whether reading it may work later, so that the partition is to be opened then. */
function isPassing(error: unknown): boolean {
  return error instanceof LogError && (error.reason === 'RESOURCE_LIMIT' || error.reason === 'CLOSED');
}

async function restore({ states, aborted, parts }: ProducerContext, contents: SnapshotContents): Promise<void> {
  for (const entry of contents.entries) states.restore(entry);
  states.settle(Number.POSITIVE_INFINITY);
  states.aborted.restore(contents.aborted);
  aborted.restore(contents.abortedFiles);
  for (const part of parts) await part.restore(contents.sections.find(({ kind }) => kind === part.kind)?.bytes);
}

async function forget({ states, aborted, parts }: ProducerContext): Promise<void> {
  states.clear();
  aborted.restore([]);
  for (const part of parts) await part.restore(undefined);
}

async function replayAbove(context: ProducerContext, from: number, slices: Slices): Promise<boolean> {
  let replayed = false;
  for (const segment of context.log.segments()) {
    if (segment.nextOffset <= from || segment.sizeInBytes === 0) continue;
    const parts = context.parts.filter((part) => part.needs(segment));
    if (!segment.hasProducers && parts.length === 0) continue;
    const replay = new Replay(context, parts, from);
    const range = { from: Math.max(from, segment.baseOffset), to: segment.nextOffset };
    const visit = (buf: Buffer, at: number): void | Promise<void> => replay.visit(buf, at);
    await scanLog(context.log, range, slices, visit, (error) => replay.warn(error));
    replayed = true;
  }
  return replayed;
}

/** What the batches of one segment add. */
class Replay {
  readonly #context: ProducerContext;
  readonly #parts: readonly SnapshotPart[];
  readonly #from: number;
  readonly #nowMs: number;

  /** @param from what begins below is known already */
  constructor(context: ProducerContext, parts: readonly SnapshotPart[], from: number) {
    this.#context = context;
    this.#parts = parts;
    this.#from = from;
    this.#nowMs = context.clock.now();
  }

  visit(buf: Buffer, at: number): void | Promise<void> {
    if (baseOffsetOf(buf, at) < this.#from) return undefined;
    const { states, aborted, log } = this.#context;
    states.note(buf, at, this.#nowMs);
    states.settle(log.durableOffset);
    for (const part of this.#parts) part.replay(buf, at);
    return aborted.isFull ? this.#spill() : undefined;
  }

  async #spill(): Promise<void> {
    const { aborted, log } = this.#context;
    await aborted.spill(log.durableOffset);
  }

  warn(error: LogError): void {
    const fields = { ...placeOf(this.#context), err: error };
    this.#context.logger.warn(fields, 'a damaged part of the log was left out when its producers were looked for');
  }
}
