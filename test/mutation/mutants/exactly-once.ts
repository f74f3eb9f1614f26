/** Exactly once: producers that are not known again, transactions that are seen half, offsets and ids given too early. */
import type { Mutant } from '../mutant.js';

const STATES = 'src/partition/producers/producer-states.ts';
const STATES_TEST = 'test/partition/producers/producer-states.test.ts';
const TRANSACTIONS_TEST = 'test/partition/producers/transactions.test.ts';

export const EXACTLY_ONCE_MUTANTS: readonly Mutant[] = [
  {
    name: 'batch of a producer that comes again appended again',
    invariants: [6],
    patches: [
      {
        file: STATES,
        find: 'if (duplicate !== undefined) return duplicate;',
        replace: 'if (duplicate !== undefined) return APPEND;',
      },
    ],
    guard: {
      file: 'test/partition/producers/idempotence.test.ts',
      test: 'a batch that comes again is not appended, and answered with its offsets',
    },
  },
  {
    name: 'lower epoch of a producer let in',
    invariants: [9],
    patches: [
      {
        file: STATES,
        find: 'return producerFenced(this.#options, batch, epoch);',
        replace: 'return APPEND;',
      },
    ],
    guard: { file: STATES_TEST, test: 'an old one is fenced before its sequence is looked at' },
  },
  {
    name: 'gap in the sequence of a producer let in',
    invariants: [5, 6],
    patches: [
      {
        file: STATES,
        find: 'if (baseSequenceOf(batch, 0) !== expected)',
        replace: 'if (baseSequenceOf(batch, 0) < expected)',
      },
    ],
    guard: { file: STATES_TEST, test: 'a gap is refused and says what comes next' },
  },
  {
    name: 'producer remembered as if a failed append had been taken',
    invariants: [5, 6],
    patches: [
      {
        file: STATES,
        find: 'if (this.#undo.length === savepoint) return;',
        replace: 'if (this.#undo.length >= savepoint) return;',
      },
    ],
    guard: {
      file: 'test/partition/producers/idempotence.test.ts',
      test: 'an append that the log does not take leaves the producer as it was',
    },
  },
  {
    name: 'last stable offset that passes open transactions',
    invariants: [11],
    patches: [
      {
        file: 'src/partition/producers/open-transactions.ts',
        find: 'return Math.min(this.firstOffset, this.#leastEnded);',
        replace: 'return this.#leastEnded;',
      },
    ],
    guard: { file: TRANSACTIONS_TEST, test: 'ends at the first offset of the oldest open transaction' },
  },
  {
    name: 'last stable offset that passes a marker which a power cut could take back',
    invariants: [2, 11],
    patches: [
      {
        file: 'src/partition/producers/open-transactions.ts',
        find: 'return Math.min(this.firstOffset, this.#leastEnded);',
        replace: 'return this.firstOffset;',
      },
    ],
    guard: { file: TRANSACTIONS_TEST, test: 'ends before a transaction whose marker a power cut could take back' },
  },
  {
    name: 'aborted transaction that no reader is told of',
    invariants: [11],
    patches: [
      {
        file: STATES,
        find: 'if (aborted) this.aborted.push(',
        replace: 'if (aborted && producerId < 0) this.aborted.push(',
      },
    ],
    guard: { file: TRANSACTIONS_TEST, test: 'tells the aborted transactions of what was read' },
  },
  {
    name: 'client that shows the batches of aborted transactions',
    invariants: [11],
    patches: [
      {
        file: 'src/client/record-batch.ts',
        find: 'if (isShown && isWithin && !aborted?.has(blob, at)) {',
        replace: 'if (isShown && isWithin) {',
      },
    ],
    guard: { file: 'test/client/isolation.test.ts', test: 'of an aborted transaction nobody sees anything' },
  },
  {
    name: 'marker under the epoch of the transaction that it ends',
    invariants: [9, 11],
    patches: [
      {
        file: 'src/partition/partition-writer.ts',
        find: 'encodeTransactionMarker({ ...end, timestampMs: nowMs })',
        replace: 'encodeTransactionMarker({ ...end, producerEpoch: end.producerEpoch - 1, timestampMs: nowMs })',
      },
    ],
    guard: { file: TRANSACTIONS_TEST, test: 'is a marker with the epoch after it, durable when it is answered' },
  },
  {
    name: 'transaction committed before what it sent is durable',
    invariants: [2, 11],
    patches: [
      {
        file: 'src/broker/transactions/transaction.ts',
        find: 'effects: [...flush, persist(after), ...completionEffects(after)]',
        replace: 'effects: [persist(after), ...completionEffects(after)]',
      },
    ],
    guard: {
      file: 'test/broker/transactions/transaction.test.ts',
      test: 'a commit makes what was sent durable, then its decision, then what follows',
    },
  },
  {
    name: 'end of a transaction ends the next one',
    invariants: [11],
    patches: [
      {
        file: 'src/partition/partition-writer.ts',
        find: 'open.producerEpoch < end.producerEpoch) {',
        replace: 'open.producerEpoch <= end.producerEpoch) {',
      },
    ],
    guard: { file: TRANSACTIONS_TEST, test: 'of an earlier transaction does not end the next one' },
  },
  {
    name: 'snapshot of producers believed without its CRC',
    invariants: [13],
    patches: [
      {
        file: 'src/partition/producers/snapshot.ts',
        find: 'if (crc !== crc32c(bytes.subarray(CRC_COVERS_FROM))) throw',
        replace: 'if (crc < 0) throw',
      },
    ],
    guard: {
      file: 'test/partition/producers/snapshot.test.ts',
      test: 'with any bit flipped, or cut short anywhere, is none',
    },
  },
  {
    name: 'message ids forgotten at a restart',
    invariants: [6],
    patches: [
      {
        file: 'src/partition/message-ids/message-id-part.ts',
        find: 'this.#ids.restore({ id, offset, cameMs });',
        replace: 'void [id, offset, cameMs];',
      },
    ],
    guard: {
      file: 'test/partition/message-ids/partition-message-ids.test.ts',
      test: 'count from the start after a kill: longer, never shorter',
    },
  },
  {
    name: 'message ids forgotten at a clean stop',
    invariants: [6],
    patches: [
      {
        file: 'src/partition/message-ids/message-id-part.ts',
        find: 'this.#ids.restore(entry);',
        replace: 'void entry;',
      },
    ],
    guard: {
      file: 'test/partition/message-ids/partition-message-ids.test.ts',
      test: 'after a clean stop have grown no younger',
    },
  },
  {
    name: 'offsets that wait for a transaction passed over in silence',
    invariants: [11],
    patches: [
      {
        file: 'src/broker/groups/commits.ts',
        find: 'if (group !== undefined && holder !== undefined) throw unstableOffset(',
        replace: 'if (group === undefined && holder !== undefined) throw unstableOffset(',
      },
    ],
    guard: {
      file: 'test/broker/groups/transaction-offsets.test.ts',
      test: 'are told to nobody until it is committed, and those of other partitions are',
    },
  },
  {
    name: 'producer ids handed out before their block is durable',
    invariants: [6],
    patches: [
      {
        file: 'src/broker/producer-ids.ts',
        find: 'const result = await this.#metadata.compareAndSet(NEXT_ID_KEY, String(end), entry?.version ?? 0);',
        replace:
          'const result = { ok: true };\n' +
          '      void this.#metadata.compareAndSet(NEXT_ID_KEY, String(end), entry?.version ?? 0);',
      },
    ],
    guard: { file: 'test/broker/producer-ids.test.ts', test: 'are not handed out before their block is durable' },
  },
];
