/** Compaction of a log in memory: the passes of `CompactionPass` over its batches, put in place one by one. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { nextOffsetOf, recordCountOf } from '../../batch/layout.js';
import { toOffset } from '../../core/types.js';
import { type BatchSource, CompactionPass } from '../compaction/compaction-pass.js';
import type { CompactOptions, CompactResult } from '../engine.js';
import { indexOfBatch, type MemoryLogState, type MemorySegment } from './log.js';

/** Work for some milliseconds, also with small records and long keys; then the event loop gets its turn. */
const BYTES_PER_TURN: number = 256 * 1024;

/** Throws when the log may not be written any more, or the batch is damaged. */
export interface CompactionChecks {
  readonly writable: () => void;
  readonly intact: (batch: Buffer) => void;
}

/** As `PartitionLog.compact`, one at a time. Appends, reads and trims may go on meanwhile. */
export async function compactInMemory(
  state: MemoryLogState,
  options: CompactOptions,
  checks: CompactionChecks,
): Promise<CompactResult> {
  const end = endOfCleanable(state, options.upTo);
  const before = batchesBelow(state, end);
  let passCount = 0;
  let readTo = state.segments[0]!.baseOffset;
  let isDone = before.length === 0;
  while (!isDone && options.signal?.aborted !== true) {
    const firstDirty = Math.max(state.cleanedOffset, state.startOffset);
    const reached = await runPass(state, options, firstDirty, end, checks);
    passCount++;
    readTo = reached.readTo;
    // A transaction that is still undecided can hold up a pass; the next compaction goes on from there.
    isDone = reached.cleanedOffset >= end || reached.cleanedOffset <= firstDirty;
  }
  const read = before.filter((batch) => nextOffsetOf(batch, 0) <= readTo);
  const left = batchesBelow(state, readTo);
  return {
    passCount,
    cleanedOffset: toOffset(Math.max(state.cleanedOffset, state.startOffset)),
    bytesBefore: bytesOf(read),
    bytesAfter: bytesOf(left),
    recordsBefore: recordsOf(read),
    recordsAfter: recordsOf(left),
  };
}

/** One pass, put in place at its end in one step. Resolves to how far it read and what was cleaned. */
async function runPass(
  state: MemoryLogState,
  options: CompactOptions,
  firstDirty: number,
  end: number,
  checks: CompactionChecks,
): Promise<{ readonly readTo: number; readonly cleanedOffset: number }> {
  const batches = state.batches.slice();
  const source = sourceOf(batches, checks.intact);
  const { nowMs, deleteRetentionMs, producerExpirationMs, maxMapBytes } = options;
  const pass = await CompactionPass.plan(source, {
    firstDirty,
    upTo: end,
    markersUpTo: state.endOffset,
    nowMs,
    deleteRetentionMs,
    producerExpirationMs,
    maxMapBytes,
  });
  const readTo = Math.min(endOfSegmentWith(state, pass.cleanedOffset - 1), end);
  const cleaned: Buffer[] = [];
  const count = indexOfBatch(batches, readTo);
  let index = 0;
  for await (const batch of source(0, readTo)) {
    const result = pass.clean(batch);
    const kept = result instanceof Promise ? await result : result;
    // The last batch of what was read stays as a header, so that the cleaned part keeps its end.
    if (kept !== undefined) cleaned.push(kept);
    else if (index === count - 1) cleaned.push(pass.placeholder(batch));
    index++;
  }
  checks.writable();
  putInPlace(state, cleaned, readTo);
  state.cleanedOffset = toOffset(Math.max(state.cleanedOffset, pass.cleanedOffset));
  return { readTo, cleanedOffset: pass.cleanedOffset };
}

/** Replaces what lies below `readTo` by `cleaned`, apart from what was trimmed meanwhile. */
function putInPlace(state: MemoryLogState, cleaned: readonly Buffer[], readTo: number): void {
  const start = state.segments[0]!.baseOffset;
  const kept = cleaned.filter((batch) => nextOffsetOf(batch, 0) > start);
  state.batches = [...kept, ...state.batches.slice(state.indexOf(readTo))];
  state.segments = grouped(state, readTo);
  state.sizeInBytes = bytesOf(state.batches);
}

/** The segments with their new sizes; neighbours below `readTo` become one while they fit. */
function grouped(state: MemoryLogState, readTo: number): MemorySegment[] {
  const groups: MemorySegment[] = [];
  for (const [i, segment] of state.segments.entries()) {
    const next = state.segments[i + 1];
    if (next === undefined || segment.baseOffset >= readTo) {
      groups.push(segment);
      continue;
    }
    const own = state.batches.slice(state.indexOf(segment.baseOffset), state.indexOf(next.baseOffset));
    const sizeInBytes = bytesOf(own);
    const group = groups[groups.length - 1];
    if (group !== undefined && group.sizeInBytes + sizeInBytes <= state.config.segmentBytes) {
      group.sizeInBytes += sizeInBytes;
      group.modifiedMs = segment.modifiedMs;
    } else {
      groups.push({ ...segment, sizeInBytes });
    }
  }
  return groups;
}

/** Iterates over a fixed list of batches. */
function sourceOf(batches: readonly Buffer[], checkIntact: (batch: Buffer) => void): BatchSource {
  return async function* (from, to) {
    const end = indexOfBatch(batches, to);
    let bytes = 0;
    for (let i = indexOfBatch(batches, from); i < end; i++) {
      const batch = batches[i]!;
      checkIntact(batch);
      yield batch;
      bytes += batch.length;
      if (bytes < BYTES_PER_TURN) continue;
      bytes = 0;
      await nextTurn();
    }
  };
}

/** End of the segments that end at or below `upTo`, the last one never among them. */
function endOfCleanable(state: MemoryLogState, upTo: number): number {
  const { segments } = state;
  let end = segments[0]!.baseOffset;
  for (const { baseOffset } of segments) if (baseOffset <= upTo) end = baseOffset;
  return end;
}

/** End of the segment that holds `offset`; its offset alone when there is none any more. */
function endOfSegmentWith(state: MemoryLogState, offset: number): number {
  return state.segments.find(({ baseOffset }) => baseOffset > offset)?.baseOffset ?? offset + 1;
}

function batchesBelow(state: MemoryLogState, offset: number): Buffer[] {
  return state.batches.slice(0, state.indexOf(offset));
}

function bytesOf(batches: readonly Buffer[]): number {
  return batches.reduce((sum, batch) => sum + batch.length, 0);
}

function recordsOf(batches: readonly Buffer[]): number {
  return batches.reduce((sum, batch) => sum + recordCountOf(batch, 0), 0);
}
