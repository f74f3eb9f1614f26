import { expect, test } from 'vitest';
import { BatchBuilder } from '../../src/batch/builder.js';
import { compressBatch } from '../../src/batch/compression.js';
import { computeBatchCrc } from '../../src/batch/crc32c.js';
import { storedCrcOf } from '../../src/batch/layout.js';
import type { ProducerIdentity } from '../../src/client/identity.js';
import { ProducerBatch } from '../../src/client/producer-batch.js';
import { addSequence, LaneSequences, MAX_SEQUENCE } from '../../src/client/sequences.js';
import { numbersOf } from './support/faulty-producing.js';

const identity: ProducerIdentity = { producerId: 2 ** 40 + 7, producerEpoch: 300 };
const target = {
  name: 'words',
  topicId: '',
  partitionCount: 1,
  lookedUpAtMs: 0,
  recheckedAtMs: Number.NEGATIVE_INFINITY,
  outdated: false,
};
let ordinal = 0;

function sealed(sequences: LaneSequences, recordCount: number): ProducerBatch {
  const builder = new BatchBuilder(100_000);
  for (let i = 0; i < recordCount; i++) builder.tryAppend(5, null, Buffer.from(`r${i}`));
  const firstSequence = sequences.seal(recordCount);
  const bytes = builder.build({ ...sequences.identity, baseSequence: firstSequence });
  const origin = {
    target,
    partition: 0,
    sealedAtMs: 0,
    ordinal: ordinal++,
    identity: sequences.identity,
    firstSequence,
    transactional: false,
  };
  return new ProducerBatch(origin, recordCount, [], 0, bytes);
}

test.each([
  [0, 1, 1],
  [MAX_SEQUENCE, 1, 0],
  [MAX_SEQUENCE - 1, 1, MAX_SEQUENCE],
  [MAX_SEQUENCE - 4, 7, 2],
  [MAX_SEQUENCE, MAX_SEQUENCE, MAX_SEQUENCE - 1],
])('sequence %i and %i records lead to %i', (sequence, count, next) => {
  expect(addSequence(sequence, count)).toBe(next);
});

test('a lane goes on at 0 behind the largest sequence', () => {
  const sequences = new LaneSequences(identity, false, MAX_SEQUENCE - 4);
  const queue = [sealed(sequences, 3), sealed(sequences, 4), sealed(sequences, 2)];
  const bytes: Buffer[] = [];
  for (let head = queue[0]; head !== undefined; head = queue[0]) {
    sequences.onSend(queue);
    bytes.push(head.numberedBytes());
    queue.shift();
  }
  expect(bytes.map((one) => numbersOf(one).first)).toEqual([MAX_SEQUENCE - 4, MAX_SEQUENCE - 1, 2]);
});

test('a batch that is numbered anew gets other bytes with a valid CRC; the old ones stay as they are', async () => {
  const sequences = new LaneSequences(identity, false);
  const refused = sealed(sequences, 2);
  const next = sealed(sequences, 3);
  next.bytes = await compressBatch(next.numberedBytes(), 'gzip');
  const old = next.bytes;
  const before = Buffer.from(old);
  sequences.onSend([refused, next]);
  sequences.rewind(refused);
  sequences.onGivenUp(refused);
  sequences.onSend([next]);
  const bytes = next.numberedBytes();
  expect(numbersOf(bytes)).toEqual({ id: identity.producerId, epoch: 300, first: 0, count: 3 });
  expect(storedCrcOf(bytes, 0)).toBe(computeBatchCrc(bytes, 0, bytes.length));
  expect(old.equals(before)).toBe(true);
  expect(next.numberedBytes()).toBe(bytes);
});

test('an epoch goes up to 32,767, and no further', () => {
  const sequences = new LaneSequences({ producerId: 1, producerEpoch: 32_766 }, false);
  expect(sequences.bump()).toBe(true);
  expect(sequences.identity).toEqual({ producerId: 1, producerEpoch: 32_767 });
  expect(sequences.bump()).toBe(false);
  expect(sequences.identity).toEqual({ producerId: 1, producerEpoch: 32_767 });
});
