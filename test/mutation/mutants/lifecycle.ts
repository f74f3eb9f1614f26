/** Brokers that forget too much, too early, or not at all. */
import type { Mutant } from '../mutant.js';

const PASS = 'src/storage/compaction/compaction-pass.ts';
const PASS_TEST = 'test/storage/compaction/compaction-pass.test.ts';
const RETENTION = 'src/partition/retention.ts';
const RETENTION_TEST = 'test/partition/retention.test.ts';

export const LIFECYCLE_MUTANTS: readonly Mutant[] = [
  {
    name: 'log start not durable before files go',
    invariants: [16],
    patches: [
      {
        file: 'src/storage/local/maintenance.ts',
        find: 'if (before > state.startOffset) await this.#replaceCheckpoint({ startOffset: before });',
        replace: '',
      },
    ],
    guard: {
      file: 'test/storage/removal.test.ts',
      test: 'the log start offset is durable before any file loses its name',
    },
  },
  {
    name: 'retention removes the segment that takes the appends',
    invariants: [16],
    patches: [
      {
        file: RETENTION,
        find: 'const rollFirst = count > last;',
        replace: 'const rollFirst = false;',
      },
      {
        file: RETENTION,
        find: 'newStartOffset: toOffset(Math.max(logStartOffset, firstKept.baseOffset)),',
        replace: 'newStartOffset: toOffset(count > last ? firstKept.nextOffset : firstKept.baseOffset),',
      },
    ],
    guard: { file: RETENTION_TEST, test: 'retention never removes more than the policy says' },
  },
  {
    name: 'retention by size removes one segment too many',
    invariants: [16],
    patches: [
      {
        file: RETENTION,
        find: 'bytesLeft >= limits.retentionBytes) return',
        replace: 'bytesLeft + segment.sizeInBytes >= limits.retentionBytes) return',
      },
    ],
    guard: { file: RETENTION_TEST, test: 'by size, the rest still holds retention.bytes' },
  },
  {
    name: 'retention removes what is not durable',
    invariants: [16],
    patches: [
      {
        file: RETENTION,
        find: 'if (isEmptyLast || end > lastStableOffset) return undefined;',
        replace: 'if (isEmptyLast || lastStableOffset < 0) return undefined;',
      },
    ],
    guard: { file: RETENTION_TEST, test: 'nothing at or above the last stable offset goes' },
  },
  {
    name: 'compaction keeps an older value',
    invariants: [4],
    patches: [
      {
        file: PASS,
        find: 'return cursor.offset >= this.#plan.keys.get(',
        replace: 'return cursor.offset !== this.#plan.keys.get(',
      },
    ],
    guard: { file: PASS_TEST, test: 'keeps the latest record of each key, at its offset' },
  },
  {
    name: 'tombstone removed too early',
    invariants: [16],
    patches: [
      {
        file: PASS,
        find: 'hasDeleteHorizon(attributesOf(batch, 0)) && this.#isPastHorizon(batch)\n',
        replace: 'hasDeleteHorizon(attributesOf(batch, 0))\n',
      },
    ],
    guard: { file: PASS_TEST, test: 'get a delete horizon from the pass that meets them first' },
  },
  {
    name: 'compaction takes what was aborted for the latest',
    invariants: [11],
    patches: [
      {
        file: PASS,
        find: 'if (outcomes !== undefined && isAborted(outcomes, batch)) continue;',
        replace: '',
      },
    ],
    guard: {
      file: 'test/storage/local.test.ts',
      test: 'lets nothing of an aborted transaction take the place of what was committed',
    },
  },
  {
    name: 'compaction replaces segments without a checkpoint',
    invariants: [15],
    patches: [
      {
        file: 'src/storage/local/segment-swap.ts',
        find: 'await this.#hooks.replaceCheckpoint({ segments: all, swap });',
        replace: 'await Promise.resolve({ all, swap });',
      },
    ],
    guard: {
      file: 'test/storage/compaction-recovery.test.ts',
      test: 'a disk that refuses the last renames of a replacement, again and again, costs no record',
    },
  },
  {
    name: 'compaction rewrites the segment that takes the appends',
    invariants: [4, 16],
    patches: [
      {
        file: 'src/storage/local/maintenance.ts',
        find: 'const closed = segments.slice(0, -1).filter(',
        replace: 'const closed = segments.filter(',
      },
      {
        file: 'src/storage/local/compactor.ts',
        find: 'for (const segment of segments.slice(0, -1)) {',
        replace: 'for (const segment of segments) {',
      },
    ],
    guard: { file: 'test/storage/local.test.ts', test: 'never touches the last segment' },
  },
  {
    name: 'deleted topic still readable',
    invariants: [16],
    patches: [
      {
        file: 'src/broker/topics.ts',
        find: 'for (const partition of partitions) partition.retire();',
        replace: '',
      },
    ],
    guard: { file: 'test/broker/deletion.test.ts', test: 'who waits for records is told before the name is free' },
  },
  {
    name: 'name of a deleted topic still served',
    invariants: [16],
    patches: [{ file: 'src/broker/topics.ts', find: 'this.#topics.delete(name);', replace: '' }],
    guard: {
      file: 'test/broker/deletion.test.ts',
      test: 'its name is free, and neither topic serves what belongs to the other',
    },
  },
];
