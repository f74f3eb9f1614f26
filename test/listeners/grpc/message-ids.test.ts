/** Producers without sequences: plain records with message ids, as a client without an encoder sends them. */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ProduceRequest, ProduceStreamResponse, RecordMessage } from '../../../src/rpc/messages.js';
import { batchOf } from '../../partition/support.js';
import { ManualClock } from '../../support/manual-clock.js';
import { rejection } from '../../support/rejection.js';
import { type Running, run } from './support.js';

const clock = new ManualClock(1_700_000_000_000);
let running: Running;

beforeEach(async () => {
  running = await run({ clock, producers: { maxMessageIds: 6 } });
  await running.raw.createTopic('t', 1, { 'dedupe.window.ms': '1000' });
});

afterEach(async () => {
  clock.advance(1000);
  await running.stop();
});

function record(value: string): RecordMessage {
  return { offset: 0, timestampMs: 0, value: Buffer.from(value), headers: [] };
}

function identified(...messageIds: string[]): Partial<ProduceRequest> {
  return { topic: 't', partition: 0, records: messageIds.map((id) => record(`value of ${id}`)), messageIds };
}

async function valuesInTopic(): Promise<(string | undefined)[]> {
  const { records } = await running.raw.fetchOne('t', 0, { format: 'RECORD_FORMAT_RECORDS' });
  return records.map(({ value }) => value?.toString());
}

describe('records with message ids', () => {
  test('are appended once, however often they are sent, and answered with where they are', async () => {
    const { raw } = running;
    const first = await raw.produce(identified('a', 'b'));
    expect(first).toMatchObject({ baseOffset: 0, lastOffset: 1, offsets: [0, 1], duplicateCount: 0 });
    const again = await raw.produce(identified('a', 'b'));
    expect(again).toMatchObject({ baseOffset: 0, lastOffset: 1, offsets: [0, 1], duplicateCount: 2 });
    const mixed = await raw.produce(identified('c', 'b', 'd', 'c'));
    expect(mixed).toMatchObject({ baseOffset: 2, lastOffset: 2, offsets: [2, 1, 3, 2], duplicateCount: 2 });
    expect(await valuesInTopic()).toEqual(['a', 'b', 'c', 'd'].map((id) => `value of ${id}`));
  });

  test('carry their id as their last header', async () => {
    const { raw } = running;
    const own = { key: 'h', value: Buffer.from('1') };
    await raw.produce({ ...identified('a'), records: [{ ...record('x'), headers: [own] }] });
    const { records } = await raw.fetchOne('t', 0, { format: 'RECORD_FORMAT_RECORDS' });
    expect(records[0]?.headers.map(({ key, value }) => [key, value?.toString()])).toEqual([
      ['h', '1'],
      ['tidelog-message-id', 'a'],
    ]);
  });

  test('are new again when the window is over', async () => {
    const { raw } = running;
    await raw.produce(identified('a'));
    clock.advance(999);
    expect(await raw.produce(identified('a'))).toMatchObject({ offsets: [0], duplicateCount: 1 });
    clock.advance(1);
    expect(await raw.produce(identified('a'))).toMatchObject({ offsets: [1], duplicateCount: 0 });
  });

  test('are refused while too many ids are remembered, with the time until there is room', async () => {
    const { raw } = running;
    await raw.produce(identified('a', 'b', 'c', 'd', 'e'));
    clock.advance(400);
    const refusal = await rejection(raw.produce(identified('f', 'g')), 'RESOURCE_LIMIT');
    expect(refusal).toMatchObject({ retryAfterMs: 600, outcome: 'none' });
    expect(await raw.produce(identified('a', 'e'))).toMatchObject({ duplicateCount: 2 });
    // Records without ids need no room.
    await raw.produce({ topic: 't', records: [record('plain')] });
    clock.advance(600);
    expect(await raw.produce(identified('f', 'g'))).toMatchObject({ offsets: [6, 7] });
    await rejection(raw.produce(identified(...'0123456')), 'INVALID_REQUEST');
  });

  test('are not answered when nobody asks for an answer', async () => {
    const { raw } = running;
    const request = { ...identified('a'), acks: 'ACKS_NONE' as const };
    await raw.produce(request);
    expect(await raw.produce(request)).toMatchObject({ baseOffset: -1, lastOffset: -1, offsets: [] });
  });

  test('go over a stream as well', async () => {
    const stream = running.raw.produceStream();
    stream.write({ correlationId: 1, request: identified('a', 'b') });
    stream.write({ correlationId: 2, request: identified('b', 'c') });
    const results = [];
    while (results.length < 2) {
      const [message] = (await once(stream, 'data')) as [ProduceStreamResponse];
      results.push(...message.results);
    }
    stream.end();
    stream.resume();
    await once(stream, 'end');
    expect(results.map(({ response }) => response?.offsets)).toEqual([
      [0, 1],
      [1, 2],
    ]);
  });
});

describe('a request with message ids is refused', () => {
  const cases: readonly (readonly [string, Partial<ProduceRequest>, RegExp])[] = [
    ['without records', { topic: 't', batches: [batchOf(['a'])], messageIds: ['a'] }, /plain records/],
    ['with fewer ids than records', { ...identified('a', 'b'), messageIds: ['a'] }, /1 message_ids for 2 records/],
    ['with more than 10,000 ids', identified(...Array.from({ length: 10_001 }, String)), /at most 10000/],
    ['with an expected offset', { ...identified('a'), expectedOffset: 0 }, /expected_offset/],
    ['with an empty id', { ...identified('a', 'b'), messageIds: ['a', ''] }, /Message id 1 is ""/],
    ['with an id of 257 characters', identified('x'.repeat(257)), /1 to 256 characters/],
    ['with a control character in an id', identified('a\u0007'), /control character/],
    [
      'with a record that has the header already',
      { ...identified('a'), records: [{ ...record('a'), headers: [{ key: 'tidelog-message-id' }] }] },
      /Record 0 has a header tidelog-message-id/,
    ],
  ];

  test.each(cases)('%s', async (_name, request, message) => {
    const refusal = await rejection(running.raw.produce(request), 'INVALID_REQUEST');
    expect(refusal.message).toMatch(message);
    expect(await valuesInTopic()).toEqual([]);
  });

  test('when it is part of a transaction', async () => {
    const request = { ...identified('a'), transactionalId: 'x' };
    const refusal = await rejection(running.raw.produce(request), 'INVALID_REQUEST');
    expect(refusal.message).toContain('Plain records cannot be part of a transaction');
  });
});
