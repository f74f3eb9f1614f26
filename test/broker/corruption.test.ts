/** Invariant 13 from end to end: a flipped byte on disk is reported to the reader, with its place, and never served. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { connect, LogError, string, topic } from '../../src/index.js';
import { rejection } from '../support/rejection.js';

test('a flipped byte in the middle of a segment gives CORRUPT_LOG with file and offset; the rest is served (invariant 13)', async () => {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'tidelog-corruption-'));
  const words = topic('words', { value: string() });
  try {
    let topicId = '';
    {
      await using broker = await startBroker({ storage: { dataDir } });
      await using client = await connect(broker.address);
      ({ topicId } = await client.admin.createTopic({ name: 'words', partitions: 1 }));
      await using producer = client.producer({ lingerMs: 0 });
      for (let i = 0; i < 9; i++) await producer.send(words, { value: `word-${i}` });
    }
    const file = path.join(dataDir, 'logs', `${topicId}-0`, '00000000000000000000.log');
    const bytes = readFileSync(file);
    const at = bytes.indexOf('word-4');
    bytes[at] = (bytes[at] ?? 0) ^ 0x20;
    writeFileSync(file, bytes);

    await using broker = await startBroker({ storage: { dataDir } });
    await using client = await connect(broker.address);
    const served: string[] = [];
    const error = await rejection(async () => {
      for await (const record of client.read(words, { from: 'earliest', to: 'end' })) served.push(record.value);
    }, 'CORRUPT_LOG');
    expect(served).toEqual(['word-0', 'word-1', 'word-2', 'word-3']);
    expect(error).toBeInstanceOf(LogError);
    expect(error.grpcCode).toBe('DATA_LOSS');
    expect(error.metadata).toMatchObject({ offset: '4', next_valid_offset: '5' });
    expect(error.metadata.file).toContain('00000000000000000000.log');
    for await (const record of client.read(words, { from: 5, to: 'end' })) served.push(record.value);
    expect(served.slice(4)).toEqual(['word-5', 'word-6', 'word-7', 'word-8']);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});
