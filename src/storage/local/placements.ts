/** Where the batches of an append go: to the end of the active segment and, where it must be closed, to new ones. */
import { NO_TIMESTAMP, newestRecordTimeOf, nextOffsetOf } from '../../batch/layout.js';
import type { Offset } from '../../core/types.js';
import type { LogConfig } from '../engine.js';
import type { Lease } from './file-cache.js';
import type { LogState } from './log-state.js';
import { MAX_RELATIVE_OFFSET, MAX_SEGMENT_BYTES, Segment } from './segment.js';

/** One synchronous call writes at most this much: 0.1 ms into the page cache. */
const MAX_WRITE_BYTES = 256 * 1024;
const MAX_WRITE_BUFFERS = 512;

/** Batches that go to the end of one segment. */
export interface Placement {
  readonly segment: Segment;
  readonly isNew: boolean;
  /** Where the first batch goes. */
  readonly position: number;
  readonly batches: Buffer[];
  byteLength: number;
  firstTimestamp: number;
  lease: Lease | undefined;
  /** Bytes that were written so far. */
  writtenBytes: number;
}

/** Distributes the batches, without changing anything. */
export function plan(batches: readonly Buffer[], state: LogState, nowMs: number): Placement[] {
  const { active, config, directory, endOffset } = state;
  const placements: Placement[] = [];
  let current = placementAt(active, false);
  for (const batch of batches) {
    if (mustRoll(current, batch, config, nowMs)) {
      current = placementAt(new Segment(directory, nextBase(current, endOffset), nowMs, false), true);
    }
    if (current.batches.length === 0) placements.push(current);
    if (current.position + current.byteLength === 0) current.firstTimestamp = newestRecordTimeOf(batch, 0);
    current.batches.push(batch);
    current.byteLength += batch.length;
  }
  return placements;
}

function placementAt(segment: Segment, isNew: boolean): Placement {
  const { sizeInBytes, firstTimestamp } = segment.contents;
  return {
    segment,
    isNew: isNew || !segment.exists,
    position: sizeInBytes,
    batches: [],
    byteLength: 0,
    firstTimestamp,
    lease: undefined,
    writtenBytes: 0,
  };
}

function nextBase(placement: Placement, endOffset: Offset): number {
  const last = placement.batches[placement.batches.length - 1];
  return last ? nextOffsetOf(last, 0) : endOffset;
}

/** Kafka's conditions: by size, by time, by full index, by relative offset. An empty segment takes anything. */
function mustRoll(placement: Placement, batch: Buffer, config: LogConfig, nowMs: number): boolean {
  const { segment } = placement;
  const size = placement.position + placement.byteLength;
  if (size === 0) return false;
  if (size > Math.min(config.segmentBytes, MAX_SEGMENT_BYTES) - batch.length) return true;
  if (nextOffsetOf(batch, 0) - 1 - segment.baseOffset > MAX_RELATIVE_OFFSET) return true;
  if (segment.indexes && (segment.indexes.offsets.isFull || segment.indexes.times.isFull)) return true;
  const since = placement.firstTimestamp === NO_TIMESTAMP ? segment.createdMs : placement.firstTimestamp;
  const now = placement.firstTimestamp === NO_TIMESTAMP ? nowMs : newestRecordTimeOf(batch, 0);
  return now - since > config.segmentMs;
}

export function openMode(placement: Placement): 'update' | 'create' {
  return placement.isNew ? 'create' : 'update';
}

export function releaseAll(placements: readonly Placement[]): void {
  for (const placement of placements) {
    placement.lease?.release();
    placement.lease = undefined;
  }
}

/** The buffers in groups of which each fits one call; a batch larger than that is divided. */
export function* writeGroups(batches: readonly Buffer[]): Generator<Buffer[], void, void> {
  let group: Buffer[] = [];
  let byteLength = 0;
  for (const batch of batches) {
    for (let from = 0; from < batch.length; from += MAX_WRITE_BYTES) {
      const piece = batch.length <= MAX_WRITE_BYTES ? batch : batch.subarray(from, from + MAX_WRITE_BYTES);
      if (group.length === MAX_WRITE_BUFFERS || byteLength + piece.length > MAX_WRITE_BYTES) {
        yield group;
        group = [];
        byteLength = 0;
      }
      group.push(piece);
      byteLength += piece.length;
    }
  }
  if (group.length > 0) yield group;
}

/** The buffers without their first `count` bytes. */
export function withoutFirst(buffers: Buffer[], count: number): Buffer[] {
  let skipped = 0;
  for (let i = 0; i < buffers.length; i++) {
    const buffer = buffers[i]!;
    if (skipped + buffer.length > count) return [buffer.subarray(count - skipped), ...buffers.slice(i + 1)];
    skipped += buffer.length;
  }
  return [];
}
