/** Ten defects that a log broker must not have; every run of the gate tries all of them. */
import type { Mutant } from '../mutant.js';

export const CLASSIC_MUTANTS: readonly Mutant[] = [
  {
    name: 'acknowledge before the sync',
    invariants: [2],
    patches: [
      {
        file: 'src/partition/partition-writer.ts',
        find: "durableUpTo: options.acks === 'durable' ? lastOffset + 1 : undefined,",
        replace: 'durableUpTo: undefined,',
      },
    ],
    guard: { file: 'test/partition/partition.test.ts', test: 'a durable append is acknowledged only after the sync' },
  },
  {
    name: 'retry a failed sync',
    invariants: [3],
    patches: [
      {
        file: 'src/storage/local/segmented-log.ts',
        find: 'await this.#context.fs.fdatasync(segment.pin!.fd);',
        replace:
          'const { fd } = segment.pin!; await this.#context.fs.fdatasync(fd).catch(() => this.#context.fs.fdatasync(fd));',
      },
    ],
    guard: { file: 'test/storage/faults.test.ts', test: 'a failed sync poisons the log and is never tried again' },
  },
  {
    name: 'recovery cuts off one byte too many',
    invariants: [1, 4],
    patches: [
      {
        file: 'src/storage/local/recovery.ts',
        find: 'const size = segment.contents.sizeInBytes;',
        replace: 'const size = segment.contents.sizeInBytes - 1;',
      },
    ],
    guard: {
      file: 'test/storage/recovery.test.ts',
      test: 'a torn tail of stale bytes is cut off',
    },
  },
  {
    name: 'CRC not checked on read',
    invariants: [13],
    patches: [
      {
        file: 'src/storage/local/log-reader.ts',
        find: 'checkBatch(buf, at, buf.length) ??',
        replace: 'checkFraming(buf, at, buf.length) ??',
      },
    ],
    guard: {
      file: 'test/storage/recovery.test.ts',
      test: 'a flip of any byte of a middle batch is found when it is read',
    },
  },
  {
    name: 'stale offset index trusted',
    invariants: [19],
    patches: [
      {
        file: 'src/storage/local/log-reader.ts',
        find: 'if (expected < 0 && (next - 1 !== firstLast || baseOffset < segment.baseOffset)) {',
        replace: 'if (expected < 0 && firstLast < 0) {',
      },
    ],
    guard: {
      file: 'test/storage/indexes.test.ts',
      test: 'whose entries lie (of the batch behind) although their checksum holds',
    },
  },
  {
    name: 'high watermark ahead of what is durable',
    invariants: [2, 4],
    patches: [
      {
        file: 'src/partition/partition.ts',
        find: 'return this.#log.durableOffset;',
        replace: 'return this.#log.endOffset;',
      },
    ],
    guard: { file: 'test/partition/partition.test.ts', test: 'records above the high watermark are not served' },
  },
  {
    name: 'lock file ignored',
    invariants: [4],
    patches: [
      {
        file: 'src/storage/local/data-dir.ts',
        find: 'if (lock) return lock;',
        replace: 'if (lockPath) return lock ?? { release: () => undefined };',
      },
    ],
    guard: { file: 'test/storage/data-dir.test.ts', test: 'a second engine in the same process is refused too' },
  },
  {
    name: 'clean marker left in place at start',
    invariants: [14, 15],
    patches: [{ file: 'src/storage/local/data-dir.ts', find: 'await fs.unlink(marker);', replace: '' }],
    guard: {
      file: 'test/storage/data-dir.test.ts',
      test: 'the marker of a clean stop is there only while nobody uses the directory',
    },
  },
  {
    name: 'wrong batch patched',
    invariants: [4],
    patches: [
      {
        file: 'src/partition/partition-writer.ts',
        find: 'this.#stamp(batch, group.next, appendTimeMs);\n      group.add(batch);\n    }\n    this.#accept(',
        replace:
          'this.#stamp(pending.batches[0]!, group.next, appendTimeMs);\n      group.add(batch);\n    }\n    this.#accept(',
      },
    ],
    guard: { file: 'test/partition/partition.test.ts', test: 'every batch of a request gets its own offset' },
  },
  {
    name: 'time index decreasing',
    invariants: [19],
    patches: [
      {
        file: 'src/storage/local/segment.ts',
        find: 'if (maxTimestamp > this.maxTimestamp) {',
        replace: 'if (maxTimestamp !== NO_TIMESTAMP) {',
      },
      { file: 'src/storage/local/time-index.ts', find: 'if (timestamp <= last) return;', replace: '' },
    ],
    guard: { file: 'test/storage/time-lookup.test.ts', test: 'are those of a model' },
  },
];
