import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { openRecords } from '../../../src/batch/records.js';
import { Producer } from '../../../src/broker/produce.js';
import type { FetchStreamResponse, ProduceStreamResponse, ProduceStreamResult } from '../../../src/rpc/messages.js';
import { fromServiceError, fromStatusMessage } from '../../../src/rpc/status-codec.js';
import { batchOf } from '../../partition/support.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { type Running, run } from './support.js';

let running: Running;

beforeEach(async () => {
  running = await run();
  await running.raw.createTopic('t');
});

afterEach(async () => {
  await running.stop();
});

const DURABLE = 'ACKS_DURABLE' as const;

/** Follows, until the test ends, how many bytes of batches have been taken from streams and not been answered. */
function noteBytesInFlight(): { readonly most: number } {
  const noted = { most: 0 };
  let current = 0;
  const { produce } = Producer.prototype;
  const spy = vi.spyOn(Producer.prototype, 'produce').mockImplementation(async function (
    this: Producer,
    command,
    lane,
  ) {
    const bytes = command.batches.reduce((sum, batch) => sum + batch.length, 0);
    current += bytes;
    noted.most = Math.max(noted.most, current);
    try {
      return await produce.call(this, command, lane);
    } finally {
      current -= bytes;
    }
  });
  onTestFinished(() => spy.mockRestore());
  return noted;
}

describe('Produce and Fetch', () => {
  test('record batches come back with their offsets', async () => {
    const { raw } = running;
    const response = await raw.produce({ topic: 't', partition: 0, batches: [batchOf(['a', 'b'])] });
    expect(response).toMatchObject({ baseOffset: 0, lastOffset: 1, logAppendTimeMs: -1, logStartOffset: 0 });
    const fetched = await raw.fetchOne('t', 0);
    expect(fetched).toMatchObject({ highWatermark: 2, nextOffset: 2, logStartOffset: 0 });
    const cursor = await openRecords(fetched.batches);
    expect(cursor.next() && cursor.value?.toString()).toBe('a');
  });

  test('plain records are produced and fetched without a batch encoder', async () => {
    const { raw } = running;
    const records = [
      { offset: 0, timestampMs: 1_700_000_000_000, key: Buffer.from('k'), value: Buffer.from('v'), headers: [] },
      { offset: 0, timestampMs: 0, headers: [{ key: 'h', value: Buffer.from('1') }, { key: 'n' }] },
    ];
    await raw.produce({ topic: 't', partition: 0, records });
    const fetched = await raw.fetchOne('t', 1, { format: 'RECORD_FORMAT_RECORDS' });
    expect(fetched.records).toHaveLength(1);
    expect(fetched.records[0]).toMatchObject({ offset: 1, headers: records[1]?.headers });
    expect(fetched.records[0]?.key).toBeUndefined();
    const all = await raw.fetchOne('t', 0, { format: 'RECORD_FORMAT_RECORDS' });
    expect(all.records[0]).toMatchObject({ offset: 0, timestampMs: 1_700_000_000_000 });
    expect(all.records[0]?.key?.toString()).toBe('k');
  });

  test('a long poll is answered when a record arrives', async () => {
    const { raw } = running;
    const waiting = raw.fetchOne('t', 0, { maxWaitMs: 20_000 });
    await raw.produce({ topic: 't', partition: 0, batches: [batchOf(['a'])] });
    expect((await waiting).nextOffset).toBe(1);
  });

  test('a long poll without records is answered empty after its time', async () => {
    const fetched = await running.raw.fetchOne('t', 0, { maxWaitMs: 30 });
    expect(fetched.batches.length).toBe(0);
    expect(fetched.nextOffset).toBe(0);
  });

  test('one unreadable partition does not keep the others from being read', async () => {
    const { raw } = running;
    await raw.produce({ topic: 't', partition: 0, batches: [batchOf(['a'])] });
    const positions = [
      { topic: 'absent', topicId: '', partition: 0, offset: 0 },
      { topic: 't', topicId: '', partition: 0, offset: 0 },
    ];
    const { partitions } = await raw.fetch({ positions, maxWaitMs: 0 });
    const [absent, present] = partitions;
    if (!absent?.error) throw new Error('expected an error');
    expect(fromStatusMessage(absent.error).reason).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(present?.nextOffset).toBe(1);
  });
});

describe('refusals carry their reason and the numbers', () => {
  test('unknown topic, unknown partition, internal topic', async () => {
    const { raw } = running;
    await rejection(
      raw.produce({ topic: 'nope', partition: 0, batches: [batchOf(['a'])] }),
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    const error = await rejection(
      raw.produce({ topic: 't', partition: 5, batches: [batchOf(['a'])] }),
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    expect(error.metadata).toMatchObject({ topic: 't', partition: '5', partition_count: '1' });
    await rejection(raw.produce({ topic: '__internal', partition: 0, batches: [batchOf(['a'])] }), 'INVALID_TOPIC');
  });

  test('an offset above the end names the valid range', async () => {
    const error = await rejection(running.raw.fetchOne('t', 9), 'OFFSET_OUT_OF_RANGE');
    expect(error.metadata).toMatchObject({ log_start_offset: '0', high_watermark: '0', offset: '9' });
  });

  test('a recreated topic is told apart by its id', async () => {
    const { raw } = running;
    const { topic } = await raw.createTopic('again');
    await raw.call('AdminService', 'DeleteTopic', { name: 'again' });
    await raw.createTopic('again');
    const request = { topic: 'again', topicId: topic.topicId, partition: 0 };
    await rejection(raw.produce({ ...request, batches: [batchOf(['a'])] }), 'UNKNOWN_TOPIC_ID');
    await rejection(raw.fetch({ positions: [{ ...request, offset: 0 }] }), 'UNKNOWN_TOPIC_ID');
  });

  test('a stream that names no id does not go on in a topic that takes the place of its own', async () => {
    const { raw } = running;
    await raw.createTopic('renewed');
    const stream = raw.fetchStream({ positions: [{ topic: 'renewed', topicId: '', partition: 0, offset: 0 }] });
    const messages: FetchStreamResponse[] = [];
    stream.on('data', (message: FetchStreamResponse) => messages.push(message)).on('error', () => {});
    await raw.produce({ topic: 'renewed', partition: 0, batches: [batchOf(['old'])] });
    await until(() => messages.length === 1, 'the first record came');
    await raw.call('AdminService', 'DeleteTopic', { name: 'renewed' });
    await raw.createTopic('renewed');
    await raw.produce({ topic: 'renewed', partition: 0, batches: [batchOf(['new', 'new'])] });
    await until(() => messages.length === 2, 'the stream said what became of its topic');
    const error = messages[1]?.partition.error;
    expect(error && fromStatusMessage(error).reason).toMatch(/^UNKNOWN_TOPIC/);
    stream.cancel();
  });

  test('batches and plain records in one request', async () => {
    const request = { topic: 't', batches: [batchOf(['a'])], records: [{ offset: 0, timestampMs: 0, headers: [] }] };
    await rejection(running.raw.produce(request), 'INVALID_REQUEST');
  });

  test('a message that is not protobuf', async () => {
    const { client } = running.raw;
    const garbage = (): Buffer => Buffer.from([0xff, 0xff, 0xff]);
    const call = new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        '/tidelog.v1.ProduceService/Produce',
        garbage,
        (bytes) => bytes,
        {},
        (error, response) => (error ? reject(fromServiceError(error)) : resolve(response)),
      );
    });
    await rejection(call, 'INVALID_REQUEST');
  });

  test('a request over the limit, with both sizes', async () => {
    const small = await run({ limits: { requestMaxBytes: 1000 } });
    try {
      await small.raw.createTopic('t');
      const error = await rejection(
        small.raw.produce({ topic: 't', batches: [Buffer.alloc(1500)] }),
        'MESSAGE_TOO_LARGE',
      );
      expect(error.metadata.max_request_bytes).toBe('1000');
      expect(Number(error.metadata.request_bytes)).toBeGreaterThan(1500);
    } finally {
      await small.stop();
    }
  });

  test('expected_offset: compare-and-append over the wire', async () => {
    const { raw } = running;
    await raw.produce({ topic: 't', batches: [batchOf(['a'])], expectedOffset: 0 });
    const error = await rejection(
      raw.produce({ topic: 't', batches: [batchOf(['a'])], expectedOffset: 0 }),
      'WRONG_OFFSET',
    );
    expect(error.metadata.log_end_offset).toBe('1');
  });
});

describe('budget of unary fetches', () => {
  const limits = { streamInFlightBytes: 100_000, connectionInFlightBytes: 100_000, totalInFlightBytes: 100_000 };

  test('answers that were taken are counted no longer', async () => {
    const small = await run({ limits });
    try {
      await small.raw.createTopic('t');
      await small.raw.produce({ topic: 't', batches: [batchOf(['x'.repeat(60_000)])] });
      for (let i = 0; i < 30; i++) {
        await until(
          () =>
            small.raw.fetchOne('t', 0).then(
              (fetched) => fetched.batches.length > 60_000,
              () => false,
            ),
          'the answer before was taken',
        );
      }
    } finally {
      await small.stop();
    }
  });

  test('more answers at once than the budget holds are refused with RESOURCE_LIMIT', async () => {
    const small = await run({ limits });
    try {
      await small.raw.createTopic('t');
      await small.raw.produce({ topic: 't', batches: [batchOf(['x'.repeat(60_000)])] });
      const fetches = await Promise.allSettled(Array.from({ length: 50 }, () => small.raw.fetchOne('t', 0)));
      const refused = fetches.filter((fetch) => fetch.status === 'rejected');
      expect(refused.length).toBeGreaterThan(0);
      expect(refused.length).toBeLessThan(50);
      for (const { reason } of refused) expect(reason).toMatchObject({ reason: 'RESOURCE_LIMIT', retryAfterMs: 100 });
    } finally {
      await small.stop();
    }
  });
});

describe('ProduceStream', () => {
  async function collect(requests: object[], expected: number): Promise<ProduceStreamResult[]> {
    const stream = running.raw.produceStream();
    const results: ProduceStreamResult[] = [];
    stream.on('data', (response: ProduceStreamResponse) => results.push(...response.results));
    for (const request of requests) stream.write(request);
    await until(() => results.length >= expected, 'all requests were answered');
    const ended = once(stream, 'status');
    stream.end();
    await ended;
    return results;
  }

  test('pipelined requests are answered by correlation id, in order per partition', async () => {
    const requests = Array.from({ length: 100 }, (_, i) => ({
      correlationId: i + 1,
      request: { topic: 't', partition: 0, acks: DURABLE, batches: [batchOf([`${i}`])] },
    }));
    const results = await collect(requests, 100);
    expect(results.map((result) => result.correlationId)).toEqual(requests.map((request) => request.correlationId));
    expect(results.map((result) => result.response?.baseOffset)).toEqual(requests.map((_, i) => i));
  });

  test('after a failure later requests for the partition are not tried, those for others are', async () => {
    await running.raw.createTopic('u');
    const bad = batchOf(['bad']);
    bad[65] = (bad[65] ?? 0) ^ 1;
    const results = await collect(
      [
        { correlationId: 1, request: { topic: 't', acks: DURABLE, batches: [batchOf(['1'])] } },
        { correlationId: 2, request: { topic: 't', acks: DURABLE, batches: [bad] } },
        { correlationId: 3, request: { topic: 't', acks: DURABLE, batches: [batchOf(['3'])] } },
        { correlationId: 4, request: { topic: 'u', acks: DURABLE, batches: [batchOf(['4'])] } },
      ],
      4,
    );
    const outcome = new Map(
      results.map((r) => [r.correlationId, r.error ? fromStatusMessage(r.error).reason : r.response?.baseOffset]),
    );
    expect(Object.fromEntries(outcome)).toEqual({ 1: 0, 2: 'CORRUPT_MESSAGE', 3: 'PRECEDING_APPEND_FAILED', 4: 0 });
  });

  test('ACKS_NONE is answered only when it fails', async () => {
    const results = await collect(
      [
        { correlationId: 1, request: { topic: 't', acks: 'ACKS_NONE', batches: [batchOf(['1'])] } },
        { correlationId: 2, request: { topic: 't', acks: 'ACKS_NONE', partition: 9, batches: [batchOf(['1'])] } },
        { correlationId: 3, request: { topic: 't', acks: DURABLE, batches: [batchOf(['2'])] } },
      ],
      2,
    );
    expect(results.map((result) => result.correlationId).sort()).toEqual([2, 3]);
    expect(results.find((result) => result.correlationId === 3)?.response?.baseOffset).toBe(1);
  });

  test('a stream far beyond its byte budget is slowed down and answered whole, in order', async () => {
    const small = await run({
      limits: { streamInFlightBytes: 20_000, connectionInFlightBytes: 30_000, totalInFlightBytes: 30_000 },
    });
    try {
      await small.raw.createTopic('t');
      const streams = [small.raw.produceStream(), small.raw.produceStream()];
      const answers = streams.map((stream) => {
        const ids: number[] = [];
        stream.on('data', (response: ProduceStreamResponse) =>
          ids.push(...response.results.map((r) => r.correlationId)),
        );
        return ids;
      });
      const inFlight = noteBytesInFlight();
      const count = 300;
      for (let id = 1; id <= count; id++) {
        const request = { topic: 't', acks: DURABLE, batches: [batchOf(['x'.repeat(5000)])] };
        for (const stream of streams) stream.write({ correlationId: id, request });
      }
      await until(() => answers.every((ids) => ids.length === count), 'every request was answered');
      for (const ids of answers) expect(ids).toEqual(Array.from({ length: count }, (_, i) => i + 1));
      // Beyond the budget of them all, each stream may have one message that was read already.
      expect(inFlight.most).toBeGreaterThan(10_000);
      expect(inFlight.most).toBeLessThan(30_000 + streams.length * 5500);
      const ended = streams.map((stream) => once(stream, 'status'));
      for (const stream of streams) stream.end();
      await Promise.all(ended);
    } finally {
      await small.stop();
    }
  });

  test('what was taken from a stream counts as received no longer (invariant 21)', async () => {
    const small = await run({ limits: { requestMaxBytes: 64 * 1024, totalInFlightBytes: 256 * 1024 } });
    try {
      await small.raw.createTopic('t');
      const stream = small.raw.produceStream();
      let answered = 0;
      stream.on('data', (response: ProduceStreamResponse) => {
        answered += response.results.length;
      });
      const count = 200;
      for (let correlationId = 1; correlationId <= count; correlationId++) {
        const request = { topic: 't', acks: DURABLE, batches: [batchOf(['x'.repeat(20_000)])] };
        stream.write({ correlationId, request });
      }
      await until(() => answered === count, 'sixteen times the limit was answered');
      stream.end();
      await once(stream, 'status');
    } finally {
      await small.stop();
    }
  });

  test('a broker that stops answers what it accepted and then ends the stream with BROKER_DRAINING', async () => {
    const stream = running.raw.produceStream();
    const results: ProduceStreamResult[] = [];
    stream.on('data', (response: ProduceStreamResponse) => results.push(...response.results));
    const failed = once(stream, 'error');
    stream.write({ correlationId: 1, request: { topic: 't', acks: DURABLE, batches: [batchOf(['1'])] } });
    await until(() => results.length === 1, 'the request was answered');
    const closing = running.broker.close();
    const [error] = (await failed) as [Error];
    expect(fromServiceError(error).reason).toBe('BROKER_DRAINING');
    await closing;
  });
});

describe('FetchStream', () => {
  test('reads a bounded range and ends', async () => {
    const { raw } = running;
    for (let i = 0; i < 20; i++) await raw.produce({ topic: 't', batches: [batchOf([`${i}`, `${i}b`])] });
    const stream = raw.fetchStream({
      positions: [{ topic: 't', partition: 0, offset: 3, endOffset: 30 }],
      maxBytes: 200,
    });
    let next = 0;
    let messages = 0;
    stream.on('data', ({ partition }: FetchStreamResponse) => {
      messages++;
      next = partition.nextOffset;
    });
    await once(stream, 'end');
    expect(next).toBe(30);
    expect(messages).toBeGreaterThan(5);
  });

  test('follows the tail over several partitions and ends when the client cancels', async () => {
    const { raw } = running;
    await raw.createTopic('many', 3);
    const positions = [0, 1, 2].map((partition) => ({ topic: 'many', partition, offset: 0 }));
    const stream = raw.fetchStream({ positions });
    const seen = new Set<number>();
    stream.on('data', ({ partition }: FetchStreamResponse) => seen.add(partition.partition));
    stream.on('error', () => {});
    for (const partition of [2, 0, 1]) {
      await raw.produce({ topic: 'many', partition, batches: [batchOf(['x'])] });
      await until(() => seen.has(partition), `partition ${partition} was delivered`);
    }
    stream.cancel();
  });

  test('a broker that stops ends a stream that follows the tail with BROKER_DRAINING, not as if it were done', async () => {
    const { raw, broker } = running;
    const stream = raw.fetchStream({ positions: [{ topic: 't', partition: 0, offset: 0 }] });
    let received = 0;
    stream.on('data', () => received++);
    const failed = once(stream, 'error');
    await raw.produce({ topic: 't', batches: [batchOf(['x'])] });
    await until(() => received === 1, 'the record was delivered');
    const closing = broker.close();
    const [error] = (await failed) as [Error];
    expect(fromServiceError(error).reason).toBe('BROKER_DRAINING');
    await closing;
  });

  test('plain records of a batch larger than one message arrive in several', async () => {
    const { raw } = running;
    await raw.call('AdminService', 'CreateTopic', { name: 'big', configs: { 'max.message.bytes': '8000000' } });
    const values = Array.from({ length: 60 }, (_, i) => `${i}`.padEnd(100_000, '.'));
    await raw.produce({ topic: 'big', batches: [batchOf(values)] });
    const stream = raw.fetchStream({
      positions: [{ topic: 'big', partition: 0, offset: 5, endOffset: 55 }],
      format: 'RECORD_FORMAT_RECORDS',
    });
    const offsets: number[] = [];
    let messages = 0;
    stream.on('data', ({ partition }: FetchStreamResponse) => {
      messages++;
      offsets.push(...partition.records.map((record) => record.offset));
    });
    await once(stream, 'end');
    expect(offsets).toEqual(Array.from({ length: 50 }, (_, i) => i + 5));
    expect(messages).toBeGreaterThan(1);
  });

  test('with plain records, too, one unreadable partition does not keep the others from being read', async () => {
    const { raw } = running;
    await raw.produce({ topic: 't', batches: [batchOf(['a', 'b'])] });
    const stream = raw.fetchStream({
      positions: [
        { topic: 'nosuch', topicId: '', partition: 0, offset: 0, endOffset: 2 },
        { topic: 't', topicId: '', partition: 0, offset: 0, endOffset: 2 },
      ],
      format: 'RECORD_FORMAT_RECORDS',
    });
    const answers: FetchStreamResponse['partition'][] = [];
    stream.on('data', ({ partition }: FetchStreamResponse) => answers.push(partition));
    await once(stream, 'end');
    expect(answers.find((each) => each.topic === 'nosuch')?.error).toBeDefined();
    expect(answers.find((each) => each.topic === 't')?.records).toHaveLength(2);
  });

  test('a deleted topic is reported on the stream', async () => {
    const { raw } = running;
    await raw.createTopic('gone');
    const stream = raw.fetchStream({ positions: [{ topic: 'gone', partition: 0, offset: 0 }] });
    const received: FetchStreamResponse[] = [];
    stream.on('data', (message: FetchStreamResponse) => received.push(message));
    const ended = once(stream, 'end');
    await raw.produce({ topic: 'gone', batches: [batchOf(['x'])] });
    await until(() => received.length === 1, 'the record was delivered');
    await raw.call('AdminService', 'DeleteTopic', { name: 'gone' });
    await ended;
    const error = received[1]?.partition.error;
    if (!error) throw new Error('expected an error');
    expect(fromStatusMessage(error).reason).toBe('UNKNOWN_TOPIC_ID');
  });
});
