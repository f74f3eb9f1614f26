/** What clients may send that is no use to them and must do no harm. */
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { status as Code } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { Producer } from '../../../src/broker/produce.js';
import { silentLogger } from '../../../src/core/logger.js';
import { ReceiveBudget } from '../../../src/listeners/grpc/receive-budget.js';
import { addHealth } from '../../../src/listeners/grpc/standard-services.js';
import { MAX_REQUEST_FIELDS } from '../../../src/rpc/field-count.js';
import { framed, RawConnection } from '../../support/raw-http2.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { type Running, run } from './support.js';

const CALL = { limitMs: 10_000 };
/** Field 1, a string of three bytes: half of a surrogate pair, as UTF-8 would write it. */
const HALF_A_PAIR = Buffer.from([0x0a, 3, 0xed, 0xa0, 0x80]);

let running: Running;
let connection: RawConnection;

beforeAll(async () => {
  running = await run();
  connection = await RawConnection.open(running.broker.address);
});

afterAll(async () => {
  connection.close();
  await running.stop();
});

test('an error that quotes text which is no UTF-8 is answered (invariant 22)', async () => {
  const topic = await connection.call('/tidelog.v1.AdminService/GetTopic', framed(HALF_A_PAIR), CALL);
  expect(topic.error?.reason).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  const health = await connection.call('/grpc.health.v1.Health/Check', framed(HALF_A_PAIR), CALL);
  expect(health.code).toBe(Code.NOT_FOUND);
});

test('an error that quotes a long text quotes the beginning of it (invariant 21)', async () => {
  const name = 'x'.repeat(100_000);
  const failure = await rejection(running.raw.call('AdminService', 'GetTopic', { name }), 'UNKNOWN_TOPIC_OR_PARTITION');
  expect(failure.message.length).toBeLessThan(2_000);
  const configs = { 'retention.ms': '9'.repeat(100_000) };
  const invalid = await rejection(running.raw.createTopic('t', 1, configs), 'INVALID_CONFIG');
  expect(invalid.metadata.value?.length).toBeLessThan(2_000);
  expect(invalid.metadata.key).toBe('retention.ms');
});

test('a request of more fields than can be held is refused before it is decoded (invariant 21)', async () => {
  const records = Buffer.alloc(2 * (MAX_REQUEST_FIELDS + 1), Buffer.from([0x32, 0]));
  const unary = await connection.call('/tidelog.v1.ProduceService/Produce', framed(records), CALL);
  expect(unary.error?.reason).toBe('MESSAGE_TOO_LARGE');
  expect(unary.error?.metadata.max_request_fields).toBe(String(MAX_REQUEST_FIELDS));
  const packed = Buffer.concat([Buffer.from([0x12, 0xc0, 0x84, 0x3d]), Buffer.alloc(1_000_000)]);
  const offsets = await connection.call('/tidelog.v1.AdminService/ListOffsets', framed(packed), CALL);
  expect(offsets.error?.reason).toBe('MESSAGE_TOO_LARGE');
});

test('the standard services answer what does not decode with a reason (invariant 22)', async () => {
  const garbage = framed(Buffer.from([0x0f]));
  for (const path of [
    '/grpc.health.v1.Health/Check',
    '/grpc.health.v1.Health/Watch',
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
  ]) {
    const answer = await connection.call(path, garbage, CALL);
    expect(answer.error?.reason, path).toBe('INVALID_REQUEST');
  }
});

test('reflection reads no further while its answers are not taken (invariant 21)', async () => {
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  const request = framed(Buffer.concat([Buffer.from([0x1a, 30]), Buffer.from('tidelog/v1/admin_service.proto')]));
  const stream = connection.session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc' });
  stream.on('error', () => undefined);
  // More than the flow-control window takes: it is gone only if the broker reads on.
  const sent = new Promise<string>((resolve) =>
    stream.write(Buffer.alloc(150_000 * request.length, request), () => resolve('sent')),
  );
  const waited = sleep(4_000, 'waits');
  expect(await Promise.race([sent, waited])).toBe('waits');
  stream.close();
});

test('a health service that there is none of is unknown to those who watch it (invariant 22)', async () => {
  const answer = await connection.call('/grpc.health.v1.Health/Watch', framed(Buffer.from([0x0a, 1, 0x78])), {
    limitMs: 100,
  });
  const SERVICE_UNKNOWN = 3;
  expect([...answer.body.subarray(5)]).toEqual([8, SERVICE_UNKNOWN]);
});

test('the health service keeps nothing of a name that there is no service of (invariant 21)', () => {
  const received = new ReceiveBudget({ limitBytes: 1, windowBytes: 1, maxStreams: 1, logger: silentLogger });
  let watch: ((call: object) => void) | undefined;
  const registry: Parameters<typeof addHealth>[0] = {
    addService(_service, implementation): void {
      watch = implementation.Watch as unknown as typeof watch;
    },
  };
  const health = addHealth(registry, received, ['known']);
  const answers: object[] = [];
  const watching = (service: string): void =>
    watch?.({ request: { service }, on: () => undefined, write: (answer: object) => answers.push(answer) });
  for (let count = 0; count < 100; count++) watching(`unknown ${count}`);
  expect(answers).toEqual(Array.from({ length: 100 }, () => ({ status: 'SERVICE_UNKNOWN' })));
  watching('known');
  // A field of the library: who watches, by name.
  expect([...(Reflect.get(health, 'watchers') as Map<string, unknown>).keys()]).toEqual(['known']);
});

test('a compressed message is refused before it is unpacked (invariant 21)', async () => {
  const message = framed(gzipSync(Buffer.alloc(16 * 1024 * 1024)), { compressed: true });
  const headers = { 'grpc-encoding': 'gzip' };
  const unary = await connection.call('/tidelog.v1.ProduceService/Produce', message, { ...CALL, headers });
  expect(unary.code).toBe(Code.UNIMPLEMENTED);
  const stream = await connection.call('/tidelog.v1.ProduceService/ProduceStream', message, { ...CALL, headers });
  expect(stream.code).toBe(Code.UNIMPLEMENTED);
  const plain = await connection.call('/tidelog.v1.AdminService/ListTopics', framed(Buffer.alloc(0)), {
    ...CALL,
    headers,
  });
  expect(plain.code).toBe(Code.OK);
});

test.for([
  { of: 'headers', request: { records: [{ offset: 0, timestampMs: 0, headers: Array(600).fill({ key: '' }) }] } },
  { of: 'batches', request: { batches: Array(600).fill(Buffer.from([0])) } },
])('what $of take besides their bytes counts as in flight (invariant 21)', async ({ request }) => {
  const small = await run({ limits: { totalInFlightBytes: 256 * 1024 } });
  let fail: (error: Error) => void = () => undefined;
  const unanswered = new Promise<never>((_resolve, reject) => {
    fail = reject;
  });
  const spy = vi.spyOn(Producer.prototype, 'produce').mockReturnValue(unanswered);
  onTestFinished(() => spy.mockRestore());
  try {
    const waiting = rejection(small.raw.produce({ topic: 't', ...request }), 'INTERNAL');
    await until(() => spy.mock.calls.length === 1, 'it is worked on');
    const refused = await rejection(small.raw.produce({ topic: 't' }), 'RESOURCE_LIMIT');
    // The room for unary calls, a quarter of it all, is used up.
    expect(Number(refused.metadata.in_flight_bytes)).toBeGreaterThan(64 * 1024);
    fail(new Error('over'));
    await waiting;
  } finally {
    fail(new Error('over'));
    await small.stop();
  }
});
