/**
 * Data directories written by earlier versions, one pair for each format: this version reads what they hold, unchanged
 * (invariants 1, 4, 14, 15).
 */
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { type Client, connect, nullable, string, topic } from '../../src/index.js';
import { FORMAT_VERSION } from '../../src/storage/local/data-dir.js';
import { verifyDataDirectory } from '../../src/storage/local/verify.js';
import { Programme } from '../support/programme.js';
import { temporaryDirectory } from '../support/temporary-directory.js';

interface GoldenRecord {
  readonly offset: number;
  readonly timestampMs: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: readonly (readonly [string, string | null])[];
}

/** By topic, partition by partition, the records from the log start on. */
type Golden = Readonly<Record<string, readonly (readonly GoldenRecord[])[]>>;

const GOLDEN = fileURLToPath(new URL('../fixtures/golden', import.meta.url));
const DIRECTORIES = readdirSync(GOLDEN).filter((name) => name.endsWith('clean'));

function goldenOf(directory: string): Golden {
  const name = directory.replace(/-(un)?clean$/, '');
  return JSON.parse(readFileSync(path.join(GOLDEN, `${name}.json`), 'utf8'));
}

async function readTopic(client: Client, name: string): Promise<GoldenRecord[][]> {
  const partitions: GoldenRecord[][] = [];
  const read = topic(name, { key: nullable(string()), value: nullable(string()) });
  for await (const { partition, offset, timestampMs, key, value, headers } of client.read(read, { to: 'end' })) {
    partitions[partition] ??= [];
    const texts = headers.map(
      ({ key: header, value: bytes }) => [header, bytes && Buffer.from(bytes).toString()] as const,
    );
    partitions[partition].push({ offset, timestampMs, key, value, headers: texts });
  }
  return partitions;
}

async function firstOffsetsFrom(client: Client, name: string, timestampMs: number): Promise<number[]> {
  const first: number[] = [];
  const read = topic(name, { value: nullable(string()) });
  for await (const { partition, offset } of client.read(read, { from: new Date(timestampMs), to: 'end' })) {
    first[partition] ??= offset;
  }
  return first;
}

async function expectGolden(client: Client, golden: Golden): Promise<void> {
  expect((await client.admin.listTopics()).map(({ name }) => name).sort()).toEqual(Object.keys(golden).sort());
  for (const [name, partitions] of Object.entries(golden)) {
    expect(await readTopic(client, name)).toEqual(partitions);
    const middle = partitions[0]!.at(-3)!.timestampMs;
    const expected = partitions.map((records) => records.find(({ timestampMs }) => timestampMs >= middle)?.offset);
    expect(await firstOffsetsFrom(client, name, middle)).toEqual(expected);
  }
}

test('every format up to the one written now has its directories', () => {
  const expected = Array.from({ length: FORMAT_VERSION }, (_, i) => [
    `format-${i + 1}-clean`,
    `format-${i + 1}-unclean`,
  ]);
  expect(DIRECTORIES.sort()).toEqual(expected.flat());
});

test.for(DIRECTORIES)(
  '%s is opened, read, appended to and started again (invariants 1, 4, 14, 15)',
  async (directory, context) => {
    const golden = goldenOf(directory);
    const programme = new Programme(context);
    const dataDir = temporaryDirectory();
    cpSync(path.join(GOLDEN, directory), dataDir, { recursive: true });
    // The records are old: nothing of them is to be forgotten here.
    const options = {
      storage: { dataDir },
      topicDefaults: { 'retention.ms': -1 },
      lifecycle: { cleanerBackoffMs: 60_000 },
    };
    for (const start of [0, 1]) {
      await using broker = await startBroker(options);
      await using client = await connect(broker.address);
      if (start === 0) await expectGolden(client, golden);
      await using producer = client.producer();
      for (const [name, partitions] of Object.entries(golden)) {
        const read = topic(name, { key: string(), value: string() });
        const ends = await client.admin.listOffsets(read, 'latest');
        for (const [partition, records] of partitions.entries()) {
          const { offset } = await producer.send(read, { partition, key: 'new', value: 'new' });
          expect(offset).toBe(ends[partition]?.offset);
          // Nothing was lost, and only the ends of transactions are behind the last record that is shown.
          const isTransactional = name === 'ledger';
          expect(offset - (records.at(-1)!.offset + 1 + start)).toBeGreaterThanOrEqual(0);
          if (!isTransactional) expect(offset).toBe(records.at(-1)!.offset + 1 + start);
        }
        const lengths = (await readTopic(client, name)).map((records) => records.length);
        expect(lengths).toEqual(partitions.map((records) => records.length + 1 + start));
      }
    }
    for await (const { problems, indexProblems, snapshotProblems } of verifyDataDirectory(dataDir)) {
      expect([...problems, ...indexProblems, ...snapshotProblems]).toEqual([]);
    }
    programme.tried('data directories');
  },
);
