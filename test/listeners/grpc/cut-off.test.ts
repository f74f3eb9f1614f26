import { expect, test } from 'vitest';
import { connect } from '../../../src/client/client.js';
import { bytes, topic } from '../../../src/client/serdes.js';
import { type Logger, silentLogger } from '../../../src/core/logger.js';
import { until } from '../../support/until.js';
import { run } from './support.js';

const KIB = 1024;
const RECORDS = 400;
const RECORD_BYTES = 60 * KIB;

test('a reader that was cut off while it read nothing goes on without loss or repetition (invariant 7)', async () => {
  let cutOff = 0;
  const logger: Logger = {
    ...silentLogger,
    warn: (_fields, message) => {
      if (message.startsWith('readers that took nothing were cut off')) cutOff++;
    },
  };
  const running = await run({ logger, limits: { totalInFlightBytes: 2 * KIB * KIB, requestMaxBytes: 256 * KIB } });
  const client = await connect(running.broker.address);
  const other = await connect(running.broker.address);
  const t = topic('t', { value: bytes() });
  try {
    await running.raw.createTopic('t');
    const producer = client.producer({ lingerMs: 0, batchBytes: 64 * KIB });
    await producer.sendMany(
      t,
      Array.from({ length: RECORDS }, () => ({ value: Buffer.alloc(RECORD_BYTES) })),
    );
    await producer.close();

    const reading = { from: 'earliest', to: 'end', fetchBytes: 64 * KIB, maxBufferedBytes: 256 * KIB } as const;
    const stalled = client.read(t, reading)[Symbol.asyncIterator]();
    const offsets = [(await stalled.next()).value?.offset];
    let others = 0;
    for await (const _record of other.read(t, reading)) others++;
    expect(others).toBe(RECORDS);
    await until(() => cutOff > 0, 'it was cut off, so that the other could read');
    for (let next = await stalled.next(); !next.done; next = await stalled.next()) offsets.push(next.value.offset);
    expect(offsets).toEqual(Array.from({ length: RECORDS }, (_, offset) => offset));
  } finally {
    await client.close();
    await other.close();
    await running.stop();
  }
});
