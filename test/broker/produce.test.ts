/** How the parts of a produce request go together, and when a partition becomes part of a transaction. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BatchOptions, encodeBatch } from '../../src/batch/builder.js';
import { type ProduceCommand, Producer } from '../../src/broker/produce.js';
import type { Topics } from '../../src/broker/topics.js';
import type { TransactionalProducer } from '../../src/broker/transactions/coordinator-types.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { AppendLane } from '../../src/partition/append-lane.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { rejection } from '../support/rejection.js';
import { openTopics } from './support.js';

interface Entered extends TransactionalProducer {
  readonly partition: number;
  /** Of the log, when it was entered. */
  readonly end: number;
}

let topics: Topics;
let producer: Producer;
let entered: Entered[];
let refuses: LogError | undefined;

beforeEach(async () => {
  topics = await openTopics(openMemoryEngine({ clock: systemClock }));
  await topics.create('t', 2, {}, false);
  entered = [];
  refuses = undefined;
  producer = new Producer({
    topics,
    clock: systemClock,
    isDraining: () => false,
    transactions: {
      enter: (who, partition) => {
        if (refuses !== undefined) throw refuses;
        entered.push({ ...who, partition: partition.index, end: partition.logEndOffset });
      },
    },
  });
});

afterEach(async () => {
  await topics.close();
});

function batch(options: BatchOptions, values: readonly string[] = ['v']): Buffer {
  const records = values.map((value) => ({ timestampMs: 1, key: null, value: Buffer.from(value) }));
  return encodeBatch(records, options);
}

function transactional(baseSequence: number, more: BatchOptions = {}): Buffer {
  return batch({ producerId: 7, producerEpoch: 3, baseSequence, transactional: true, ...more });
}

function command(parts: Partial<ProduceCommand>): ProduceCommand {
  return {
    topic: 't',
    topicId: '',
    partition: 0,
    acks: 'written',
    batches: [],
    records: [],
    expectedOffset: undefined,
    transactionalId: '',
    messageIds: [],
    ...parts,
  };
}

const end = (): number => topics.partition('t', '', 0).logEndOffset;

describe('transactional batches', () => {
  test('make their partition part of the transaction before they are in the log', async () => {
    const batches = [transactional(0), transactional(1)];
    await producer.produce(command({ transactionalId: 'x', batches }));
    await producer.produce(command({ transactionalId: 'x', batches: [transactional(0)], partition: 1 }));
    const who = { transactionalId: 'x', producerId: 7, producerEpoch: 3, end: 0 };
    expect(entered).toEqual([
      { ...who, partition: 0 },
      { ...who, partition: 1 },
    ]);
    expect(end()).toBe(2);
  });

  test('are entered in the turn in which they are sent, so that an end sent later comes behind them', () => {
    void producer.produce(command({ transactionalId: 'x', batches: [transactional(0)] }));
    expect(entered).toHaveLength(1);
  });

  test('are not appended when the coordinator refuses, nor is what follows on the same stream', async () => {
    const lane = new AppendLane();
    refuses = new LogError('CONCURRENT_TRANSACTIONS', 'wait');
    const first = producer.produce(command({ transactionalId: 'x', batches: [transactional(0)] }), lane);
    refuses = undefined;
    const second = producer.produce(command({ transactionalId: 'x', batches: [transactional(1)] }), lane);
    await rejection(first, 'CONCURRENT_TRANSACTIONS');
    await rejection(second, 'PRECEDING_APPEND_FAILED');
    expect(end()).toBe(0);
  });

  test('that are damaged begin no transaction', async () => {
    const damaged = transactional(0);
    damaged[damaged.length - 1]! ^= 1;
    await rejection(producer.produce(command({ transactionalId: 'x', batches: [damaged] })), 'CORRUPT_MESSAGE');
    expect(entered).toEqual([]);
  });

  test('of a partition that closes begin no transaction', async () => {
    const partition = topics.partition('t', '', 0);
    partition.retire();
    await rejection(
      producer.produce(command({ transactionalId: 'x', batches: [transactional(0)] })),
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    expect(entered).toEqual([]);
  });
});

describe('what does not go together is refused, and begins no transaction', () => {
  const plain = (): Buffer => batch({});
  const cases: readonly (readonly [
    string,
    () => Partial<ProduceCommand>,
    'INVALID_TXN_STATE' | 'INVALID_REQUEST' | 'INVALID_RECORD',
  ])[] = [
    ['a transactional batch without a transactional id', () => ({ batches: [transactional(0)] }), 'INVALID_TXN_STATE'],
    ['one among others', () => ({ batches: [plain(), transactional(0)] }), 'INVALID_TXN_STATE'],
    ['a batch outside the transaction', () => ({ transactionalId: 'x', batches: [plain()] }), 'INVALID_REQUEST'],
    ['one behind others', () => ({ transactionalId: 'x', batches: [transactional(0), plain()] }), 'INVALID_REQUEST'],
    [
      'batches of two producers',
      () => ({ transactionalId: 'x', batches: [transactional(0), transactional(0, { producerId: 8 })] }),
      'INVALID_REQUEST',
    ],
    [
      'batches of two epochs',
      () => ({ transactionalId: 'x', batches: [transactional(0), transactional(0, { producerEpoch: 4 })] }),
      'INVALID_REQUEST',
    ],
    [
      'plain records in a transaction',
      () => ({ transactionalId: 'x', records: [{ timestampMs: undefined, key: null, value: null }] }),
      'INVALID_REQUEST',
    ],
    [
      'a control batch of a client',
      () => ({ transactionalId: 'x', batches: [transactional(0, { control: true })] }),
      'INVALID_RECORD',
    ],
    [
      'a transactional batch without a producer id',
      () => ({ transactionalId: 'x', batches: [transactional(0, { producerId: -1 })] }),
      'INVALID_RECORD',
    ],
    ['no batches at all', () => ({ transactionalId: 'x' }), 'INVALID_RECORD'],
    [
      'a batch of a client that claims message ids',
      () => ({ batches: [batch({ messageIds: true })] }),
      'INVALID_RECORD',
    ],
  ];

  test.each(cases)('%s', async (_name, parts, reason) => {
    await rejection(producer.produce(command(parts())), reason);
    expect(entered).toEqual([]);
    expect(end()).toBe(0);
  });
});
