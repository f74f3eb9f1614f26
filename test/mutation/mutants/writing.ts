/** Brokers and clients that write something else than they say, or in another order. */
import type { Mutant } from '../mutant.js';

const WRITER = 'src/partition/partition-writer.ts';
const PARTITION_TEST = 'test/partition/partition.test.ts';
const LOCAL_TEST = 'test/storage/local.test.ts';

export const WRITING_MUTANTS: readonly Mutant[] = [
  {
    name: 'append at another offset than the end taken',
    invariants: [4],
    patches: [
      {
        file: 'src/storage/local/appender.ts',
        find: 'if (at !== state.endOffset) throw wrongOffset(at, state.endOffset);',
        replace: '',
      },
    ],
    guard: { file: LOCAL_TEST, test: 'refuses an append that does not begin at the end' },
  },
  {
    name: 'expected offset of a producer ignored',
    invariants: [4, 5],
    patches: [
      {
        file: WRITER,
        find: 'if (expectedOffset === undefined || expectedOffset === next) return undefined;',
        replace: 'if (expectedOffset === undefined || expectedOffset >= 0) return undefined;',
      },
    ],
    guard: { file: PARTITION_TEST, test: 'an append with a wrong expected offset changes nothing' },
  },
  {
    name: 'failed append of a group acknowledged',
    invariants: [1, 5],
    patches: [
      {
        file: WRITER,
        find: 'if (failure !== undefined && accepted.isOfGroup) accepted.reject(failure);',
        replace: 'if (failure !== undefined && accepted.isOfGroup) accepted.resolve();',
      },
    ],
    guard: { file: PARTITION_TEST, test: 'failing appends are logged once' },
  },
  {
    name: 'later appends of a stream tried after a failed one',
    invariants: [6],
    patches: [
      {
        file: 'src/partition/append-lane.ts',
        find: 'return index > this.#failedAt ? this.#failure : undefined;',
        replace: 'return index < this.#failedAt ? this.#failure : undefined;',
      },
    ],
    guard: { file: PARTITION_TEST, test: 'an invalid append stops those behind it and none before it' },
  },
  {
    name: 'older epoch not fenced',
    invariants: [9],
    patches: [
      {
        file: 'src/storage/local/log-handle.ts',
        find: 'if (this.#isFenced()) throw fencedEpoch(',
        replace: 'if (this.#closing) throw fencedEpoch(',
      },
    ],
    guard: { file: LOCAL_TEST, test: 'a newer epoch fences the older one' },
  },
  {
    name: 'compare-and-set ignores the version',
    invariants: [9],
    patches: [
      {
        file: 'src/storage/metadata-map.ts',
        find: 'if ((current?.version ?? 0) !== expectedVersion)',
        replace: 'if ((current?.version ?? 0) < 0)',
      },
    ],
    guard: { file: LOCAL_TEST, test: 'of several that compare with the same version one wins' },
  },
  {
    name: 'bytes in flight never released',
    invariants: [21],
    patches: [{ file: 'src/core/byte-budget.ts', find: 'this.#usedBytes -= bytes;', replace: '' }],
    guard: { file: 'test/core/byte-budget.test.ts', test: 'a charge counts at every level' },
  },
  {
    name: 'requests of a stream not charged',
    invariants: [21],
    patches: [
      { file: 'src/listeners/grpc/pipelined-stream.ts', find: 'this.#budget.charge(bytes);', replace: '' },
      { file: 'src/listeners/grpc/pipelined-stream.ts', find: 'this.#budget.release(bytes);', replace: '' },
    ],
    guard: {
      file: 'test/listeners/grpc/produce-fetch.test.ts',
      test: 'a stream far beyond its byte budget is slowed down and answered whole, in order',
    },
  },
  {
    name: 'client reports a definite failure as success',
    invariants: [1, 5],
    patches: [
      {
        file: 'src/client/recovery.ts',
        find: '} else this.#settler.fail(batch, batch.withOutcome(error));\n  }',
        replace: '} else batch.succeed({ partition: batch.partition, baseOffset: 0, logAppendTimeMs: -1 });\n  }',
      },
    ],
    guard: { file: 'test/client/producer-faults.test.ts', test: 'a lasting failure rejects its own records only' },
  },
  {
    name: 'client puts what it repeats behind what is new',
    invariants: [6],
    patches: [
      {
        file: 'src/client/recovery.ts',
        find: 'lane.queue = [...answered, ...lane.queue];',
        replace: 'lane.queue = [...lane.queue, ...answered];',
      },
    ],
    guard: { file: 'test/client/producer-faults.test.ts', test: 'a passing failure is repeated on a fresh stream' },
  },
  {
    name: 'client takes a lost answer for a definite failure',
    invariants: [5],
    patches: [
      {
        file: 'src/client/producer-batch.ts',
        find: "if (error.outcome === 'unknown' && !isFollower) this.maybeWritten = true;",
        replace: '',
      },
    ],
    guard: {
      file: 'test/client/producer-faults.test.ts',
      test: 'records whose attempts may have been carried out are rejected with their outcome unknown',
    },
  },
  {
    name: 'client sends under another number what may still arrive under its old one',
    invariants: [6],
    patches: [
      {
        file: 'src/client/recovery.ts',
        find: 'if (sequences.hasGap) this.#giveUpAttempted(lane, error);\n    else ',
        replace: '',
      },
    ],
    guard: {
      file: 'test/client/producer-idempotence.test.ts',
      test: 'what was sent behind a batch that was given up may arrive with it',
    },
  },
  {
    name: 'client gives the sequences of what it gave up to the next batch',
    invariants: [6],
    patches: [
      {
        file: 'src/client/sequences.ts',
        find: '    this.#nextSent = batch.nextSequence;\n    this.#gapAt',
        replace: '    this.#gapAt',
      },
    ],
    guard: { file: 'test/client/producer-idempotence.test.ts', test: 'what was given up and perhaps written keeps' },
  },
];
