import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Running, run } from '../grpc/support.js';

let running: Running;

beforeEach(async () => {
  running = await run({ http: '127.0.0.1:0' });
});

afterEach(async () => {
  await running.stop();
});

function get(path: string, init?: RequestInit): Promise<Response> {
  return fetch(`http://${running.broker.httpAddress}${path}`, init);
}

test('GET /healthz answers SERVING', async () => {
  const response = await get('/healthz');
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ status: 'SERVING', failures: [] });
});

test('other paths and methods are refused', async () => {
  expect((await get('/')).status).toBe(404);
  expect((await get('/healthz', { method: 'POST' })).status).toBe(405);
});
