/** Brokers that serve what they should not, or do not find what they have. */
import type { Mutant } from '../mutant.js';

const INDEXES_TEST = 'test/storage/indexes.test.ts';
const LOCAL_TEST = 'test/storage/local.test.ts';

export const READING_MUTANTS: readonly Mutant[] = [
  {
    name: 'stale index trusted, whatever its checksum',
    invariants: [19],
    patches: [
      {
        file: 'src/storage/local/index-cache.ts',
        find: '(crc === undefined || crc32c(bytes) === crc)',
        replace: '(crc === undefined || crc32c(bytes) >= 0)',
      },
    ],
    guard: { file: INDEXES_TEST, test: 'that are some time early change no answer' },
  },
  {
    name: 'a batch at the end of a segment passed over',
    invariants: [7],
    patches: [
      {
        file: 'src/storage/local/log-reader.ts',
        find: 'const nextOffset = toOffset(checked.nextOffset);',
        replace:
          'const atEnd = filePosition + chunk.length === segment.contents.sizeInBytes && segment !== this.#state.active; const nextOffset = toOffset(checked.nextOffset + (atEnd ? 1 : 0));',
      },
    ],
    guard: { file: 'test/storage/recovery.test.ts', test: 'without a checkpoint scans everything and finds the same' },
  },
  {
    name: 'a read that begins inside of a batch begins with the next one',
    invariants: [7],
    patches: [
      {
        file: 'src/storage/local/log-reader.ts',
        find: 'if (next > from) return { found: true, at, expected: baseOffset };',
        replace: 'if (baseOffset >= from) return { found: true, at, expected: baseOffset };',
      },
    ],
    guard: {
      file: LOCAL_TEST,
      test: 'without tail cache and with two file handles: the storage seam read begins with the batch that contains the offset',
    },
  },
  {
    name: 'time look-up takes the last batch of its time',
    invariants: [19],
    patches: [
      {
        file: 'src/storage/local/time-lookup.ts',
        find: 'newestRecordTimeOf(buf, at) < this.#timestampMs) return true;',
        replace: 'newestRecordTimeOf(buf, at) <= this.#timestampMs) return true;',
      },
    ],
    guard: { file: LOCAL_TEST, test: 'batchForTime finds the first batch that reaches a time' },
  },
  {
    name: 'reader goes backward after a reconnection',
    invariants: [7],
    patches: [
      {
        file: 'src/client/fetch-session.ts',
        find: 'offset: nextOffset,',
        replace: 'offset: this.#failures > 0 ? Math.max(0, nextOffset - 20) : nextOffset,',
      },
      {
        file: 'src/client/fetch-session.ts',
        find: 'if (progress === undefined || message.nextOffset < progress.nextOffset) return;',
        replace: 'if (progress === undefined) return;',
      },
      {
        file: 'src/client/reader.ts',
        find: 'bounds.from = Math.max(bounds.from, fetched.nextOffset);',
        replace: '',
      },
    ],
    guard: {
      file: 'test/client/reader.test.ts',
      test: 'a connection lost in the middle is made anew without losing or repeating',
    },
  },
  {
    name: 'reader skips a batch after a reconnection',
    invariants: [7],
    patches: [
      {
        file: 'src/client/fetch-session.ts',
        find: 'offset: nextOffset,',
        replace: 'offset: nextOffset + (this.#failures > 0 ? 7 : 0),',
      },
    ],
    guard: {
      file: 'test/client/reader.test.ts',
      test: 'a connection lost in the middle is made anew without losing or repeating',
    },
  },
];
