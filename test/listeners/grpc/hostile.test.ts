/** What clients may send that is no use to them and must do no harm. */
import { setTimeout as sleep } from 'node:timers/promises';
import { status as Code } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MAX_REQUEST_FIELDS } from '../../../src/rpc/field-count.js';
import { framed, RawConnection } from '../../support/raw-http2.js';
import { rejection } from '../../support/rejection.js';
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
