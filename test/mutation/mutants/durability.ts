/** Brokers that promise what the disk does not hold. */
import type { Mutant } from '../mutant.js';

const PARTITION_TEST = 'test/partition/partition.test.ts';
const FAULTS_TEST = 'test/storage/faults.test.ts';

export const DURABILITY_MUTANTS: readonly Mutant[] = [
  {
    name: 'tail cache serves beyond the high watermark',
    invariants: [2, 4],
    patches: [
      {
        file: 'src/storage/local/tail-cache.ts',
        find: 'if (entry.nextOffset > to || ',
        replace: 'if (',
      },
    ],
    guard: { file: 'test/storage/local.test.ts', test: 'stops before `to`' },
  },
  {
    name: 'a sync vouches for what was appended while it ran',
    invariants: [2],
    patches: [
      {
        file: 'src/storage/local/segmented-log.ts',
        find: 'state.durableOffset = endOffset;',
        replace: 'state.durableOffset = state.endOffset;',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'a sync covers what was appended before it began' },
  },
  {
    name: 'a flush joins the sync that has begun',
    invariants: [2],
    patches: [
      {
        file: 'src/storage/local/flusher.ts',
        find: 'if (!this.#begun) return this.#current;',
        replace: 'if (this.#current) return this.#current;',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'a sync covers what was appended before it began' },
  },
  {
    name: 'a sync releases everybody who waits',
    invariants: [2],
    patches: [
      {
        file: 'src/partition/group-sync.ts',
        find: 'if (waiter.endOffset > durable) break;',
        replace: '',
      },
    ],
    guard: { file: PARTITION_TEST, test: 'appends that arrive during a sync share the next one' },
  },
  {
    name: 'directory entry of a new segment not synced',
    invariants: [2],
    patches: [
      {
        file: 'src/storage/local/segmented-log.ts',
        find: 'if (entriesDirty) await',
        replace: "if (entriesDirty && directory === '') await",
      },
    ],
    guard: { file: FAULTS_TEST, test: 'the entry of a new file is durable before its first batch counts as durable' },
  },
  {
    name: 'only the last segment synced after a roll',
    invariants: [2],
    patches: [
      {
        file: 'src/storage/local/segmented-log.ts',
        find: 'for (const segment of dirty) await this.#syncData(segment);',
        replace: 'for (const segment of dirty) if (segment === state.active) await this.#syncData(segment);',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'one flush makes everything durable' },
  },
  {
    name: 'a replaced file gets its name before its bytes are synced',
    invariants: [2, 15],
    patches: [
      {
        file: 'src/storage/local/small-files.ts',
        find: 'await writeSynced(fs, temporary, contents);',
        replace: 'await writeWhole(fs, temporary, contents);',
      },
    ],
    guard: {
      file: 'test/storage/small-files.test.ts',
      test: 'a file that is replaced is there whole after any power cut',
    },
  },
  {
    name: 'metadata acknowledged before its sync',
    invariants: [2],
    patches: [
      {
        file: 'src/storage/local/metadata-store.ts',
        find: 'await this.#fs.fdatasync(this.#fd);\n    } catch (error) {\n      throw',
        replace: '} catch (error) {\n      throw',
      },
    ],
    guard: { file: 'test/storage/metadata-store.test.ts', test: 'a failed sync is final' },
  },
  {
    name: 'log not poisoned by a failed write',
    invariants: [3],
    patches: [
      {
        file: 'src/storage/local/appender.ts',
        find: 'state.failure = fatal;',
        replace: '',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'any other write error poisons the log' },
  },
  {
    name: 'failed append not cut off',
    invariants: [4, 5],
    patches: [
      {
        file: 'src/storage/local/appender.ts',
        find: 'this.#context.fs.ftruncateSync(placement.lease.fd, placement.position);',
        replace: 'void placement;',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'in the middle of a batch leaves nothing of it in the file' },
  },
  {
    name: 'a full disk poisons the log',
    invariants: [20],
    patches: [
      {
        file: 'src/storage/local/appender.ts',
        find: 'isOutOfSpace(cause) || isUntriedSync(cause)',
        replace: 'isUntriedSync(cause)',
      },
    ],
    guard: { file: FAULTS_TEST, test: 'fails the append whole, and the log works again once there is room' },
  },
];
