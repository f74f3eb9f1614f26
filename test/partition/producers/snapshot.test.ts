import { describe, expect, test } from 'vitest';
import { crc32c } from '../../../src/batch/crc32c.js';
import { systemClock } from '../../../src/core/clock.js';
import { Slices } from '../../../src/core/slices.js';
import type { ProducerEntry } from '../../../src/partition/producers/producer-entry.js';
import { MAX_SEQUENCE } from '../../../src/partition/producers/sequence.js';
import { decodeSnapshot, encodeSnapshot, type SnapshotContents } from '../../../src/partition/producers/snapshot.js';
import { decodeTxnIndex, encodeTxnIndex } from '../../../src/partition/producers/txn-index.js';
import { Programme } from '../../support/programme.js';
import { StatesUnderTest } from './support.js';

const NOW = 1_700_000_000_500;
const EMPTY: SnapshotContents = { entries: [], aborted: [], abortedFiles: [], sections: [] };
/** As Kafka has written it: producer 5, epoch 0, sequences 0 and 1 at offsets 0 and 1. */
const GOLDEN =
  '0001c3e2c9200000000100000000000000050000000000010000000000000001000000000000018bcfe56864ffffffffffffffffffffffff';

const slices = (): Slices => new Slices(systemClock, 5);
const encode = (contents: SnapshotContents): Promise<Buffer> => encodeSnapshot(contents, slices());
const decode = (bytes: Buffer): Promise<SnapshotContents> => decodeSnapshot(bytes, NOW, slices());

function goldenStates(): StatesUnderTest {
  const t = new StatesUnderTest();
  t.send({ id: 5, sequence: 0, timestampMs: 1_700_000_000_000 });
  t.send({ id: 5, sequence: 1, timestampMs: 1_700_000_000_100 });
  return t;
}

/** Something of everything. */
function sample(): SnapshotContents {
  const t = new StatesUnderTest();
  t.nowMs = NOW - 1000;
  for (let sequence = 0; sequence < 7; sequence++) t.send({ id: 1, epoch: 3, sequence, timestampMs: sequence });
  t.send({ id: 2 ** 40, sequence: MAX_SEQUENCE, count: 5 });
  t.send({ id: 9, epoch: 32_766, sequence: 0, transactional: true });
  t.marker(9, 32_767, false);
  t.send({ id: 4, sequence: 0, transactional: true });
  const [first] = [...t.states.entries()].filter(({ producerId }) => producerId === 1);
  const stamped: ProducerEntry = {
    ...first!,
    producerId: 77,
    batches: [{ ...first!.batches[0]!, logAppendTime: true }],
  };
  return {
    entries: [...t.states.entries(), stamped],
    aborted: [...t.states.aborted.entries],
    abortedFiles: [{ firstMarker: 1, lastMarker: 9, leastOffset: 0, lastStableOffset: 8, count: 3, crc: 0xf000_0001 }],
    sections: [
      { kind: 7, bytes: Buffer.from('seven') },
      { kind: -1, bytes: Buffer.alloc(0) },
    ],
  };
}

describe('a snapshot', () => {
  test('of nothing is as Kafka writes it', async () => {
    const bytes = await encode(EMPTY);
    expect(bytes.toString('hex')).toBe(`0001${crc32c(Buffer.alloc(4)).toString(16).padStart(8, '0')}00000000`);
    expect(await decode(bytes)).toEqual(EMPTY);
  });

  test('begins with what Kafka writes; what is ours stands behind it, under the same CRC', async () => {
    const bytes = await encode({ ...EMPTY, entries: [...goldenStates().states.entries()] });
    const golden = Buffer.from(GOLDEN, 'hex');
    expect(bytes.subarray(0, 2)).toEqual(golden.subarray(0, 2));
    expect(bytes.subarray(6, golden.length)).toEqual(golden.subarray(6));
    expect(bytes.readUInt32BE(2)).toBe(crc32c(bytes.subarray(6)));
    expect(bytes.length).toBeGreaterThan(golden.length);
  });

  test('that Kafka has written is read, with the one batch that it remembers', async () => {
    const { entries } = await decode(Buffer.from(GOLDEN, 'hex'));
    const [expected] = goldenStates().states.entries();
    expect(entries).toEqual([{ ...expected, batches: [expected!.batches[1]], lastWriteMs: NOW }]);
  });

  test('gives back all that went in', async () => {
    const contents = sample();
    expect(await decode(await encode(contents))).toEqual(contents);
  });

  test('knows of no write later than now', async () => {
    const contents = sample();
    const late = contents.entries.map((entry) => ({ ...entry, lastWriteMs: NOW + 1000 }));
    const { entries } = await decode(await encode({ ...contents, entries: late }));
    expect(new Set(entries.map(({ lastWriteMs }) => lastWriteMs))).toEqual(new Set([NOW]));
  });

  test('with any bit flipped, or cut short anywhere, is none (invariant 13)', async () => {
    const bytes = await encode(sample());
    for (let at = 0; at < bytes.length; at++) {
      await expect(decode(bytes.subarray(0, at)), `cut at ${at}`).rejects.toThrow();
      for (let bit = 0; bit < 8; bit++) {
        const flipped = Buffer.from(bytes);
        flipped[at]! ^= 1 << bit;
        await expect(decode(flipped), `bit ${bit} of byte ${at}`).rejects.toThrow();
      }
    }
  });

  test('of nonsense under a right CRC is refused with an Error, or holds (invariant 22)', async (context) => {
    const programme = new Programme(context);
    const bytes = await encode(sample());
    for (let i = 0; i < 2000; i++) {
      const nonsense = Buffer.from(bytes.subarray(0, bytes.length - programme.below(20)));
      for (let n = programme.below(4); n >= 0; n--)
        nonsense[6 + programme.below(nonsense.length - 6)] = programme.below(256);
      nonsense.writeUInt32BE(crc32c(nonsense.subarray(6)), 2);
      const decoded = await decode(nonsense).catch((error: unknown) => error);
      if (!(decoded instanceof Error)) expect(decoded).toHaveProperty('entries');
    }
    programme.tried('broken snapshots', 2000);
  });

  test('of very many producers does not keep others waiting (invariant 22)', async () => {
    const [entry] = sample().entries;
    const entries = Array.from({ length: 50_000 }, (_, producerId) => ({
      ...entry!,
      producerId,
      transaction: undefined,
    }));
    let turns = 0;
    let running = true;
    const count = (): void => {
      turns++;
      if (running) setImmediate(count);
    };
    setImmediate(count);
    const { entries: read } = await decode(await encode({ ...EMPTY, entries }));
    running = false;
    expect(read.length).toBe(50_000);
    expect(turns).toBeGreaterThan(3);
  });
});

describe('a file of aborted transactions', () => {
  const entries = [
    { producerId: 1, firstOffset: 0, lastOffset: 4, lastStableOffset: 2 },
    { producerId: 1, firstOffset: 5, lastOffset: 7, lastStableOffset: 8 },
  ];

  test('is as Kafka writes it', () => {
    const { file, bytes } = encodeTxnIndex(entries);
    expect(bytes.toString('hex')).toBe(
      '00000000000000000001000000000000000000000000000000040000000000000002' +
        '00000000000000000001000000000000000500000000000000070000000000000008',
    );
    expect(file).toMatchObject({ firstMarker: 4, lastMarker: 7, leastOffset: 0, lastStableOffset: 8, count: 2 });
    expect(decodeTxnIndex(file, bytes)).toEqual(entries);
  });

  test('that is not the one which was written is none', () => {
    const { file, bytes } = encodeTxnIndex(entries);
    expect(decodeTxnIndex(file, bytes.subarray(0, 34))).toBeUndefined();
    bytes[20]! ^= 1;
    expect(decodeTxnIndex(file, bytes)).toBeUndefined();
  });
});
