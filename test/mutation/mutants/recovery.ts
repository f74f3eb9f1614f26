/** Brokers that do not find again what they wrote, or believe what they find. */
import type { Mutant } from '../mutant.js';

const RECOVERY = 'src/storage/local/recovery.ts';
const RECOVERY_TEST = 'test/storage/recovery.test.ts';

export const RECOVERY_MUTANTS: readonly Mutant[] = [
  {
    name: 'recovery leaves one byte of a torn tail',
    invariants: [14],
    patches: [
      {
        file: RECOVERY,
        find: 'const size = segment.contents.sizeInBytes;',
        replace: 'const size = segment.contents.sizeInBytes + 1;',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'a torn tail of stale bytes is cut off' },
  },
  {
    name: 'torn tail not cut off',
    invariants: [14],
    patches: [
      {
        file: RECOVERY,
        find: 'await this.#truncate(segment, fileSize, scan.tail.why);',
        replace: 'await Promise.resolve();',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'a torn tail of stale bytes is cut off' },
  },
  {
    name: 'corruption below the recovery point cut off',
    invariants: [14],
    patches: [
      {
        file: RECOVERY,
        find: 'const isCorrupt = contents.nextOffset < durableEnd ||',
        replace: 'const isCorrupt = durableEnd < 0 ||',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'of the last batch is no torn tail when that was durable' },
  },
  {
    name: 'everything behind a damaged batch cut off',
    invariants: [14],
    patches: [
      {
        file: 'src/storage/local/scanner.ts',
        find: "if (typeof found === 'string') {",
        replace: "if (found !== 'given up') {",
      },
      {
        file: 'src/storage/local/scanner.ts',
        find: "searched: found === 'none' } };",
        replace: 'searched: true } };',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'before an intact batch is never cut off' },
  },
  {
    name: 'offsets of lost records given again',
    invariants: [4],
    patches: [
      {
        file: RECOVERY,
        find: 'const endOffset = Math.max(last?.contents.nextOffset ?? 0, startOffset,',
        replace: 'const endOffset = Math.max(last?.contents.nextOffset ?? 0, startOffset); void Math.max(0,',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'offsets of segments that are missing at the end are not given again' },
  },
  {
    name: 'scanned segments not synced',
    invariants: [2, 15],
    patches: [{ file: RECOVERY, find: 'await this.#syncFile(segment);', replace: '' }],
    guard: { file: RECOVERY_TEST, test: 'makes what it has found durable before that counts as such' },
  },
  {
    name: 'checkpoint believed whatever the size of a segment',
    invariants: [1, 4],
    patches: [
      {
        file: RECOVERY,
        find: 'if (record && record.sizeInBytes === fileSize) {',
        replace: 'if (record && fileSize > 0) {',
      },
    ],
    guard: { file: RECOVERY_TEST, test: 'a closed segment that was truncated is reported' },
  },
  {
    name: 'metadata journal with damage inside goes on without it',
    invariants: [13, 14],
    patches: [
      {
        file: 'src/storage/local/metadata-journal.ts',
        find: 'throw corruptLog(path, damage.position, damage.offset, damage.nextOffset, damage.why);',
        replace: 'logger.warn({ damage }, "skipped");',
      },
    ],
    guard: { file: 'test/storage/metadata-store.test.ts', test: 'corruption in the middle is refused, never dropped' },
  },
];
