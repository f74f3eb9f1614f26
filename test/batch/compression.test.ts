import zlib, { gzipSync } from 'node:zlib';
import lz4 from 'lz4-napi';
import snappy from 'snappy';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { type BuiltInZstd, createZstdCodec } from '../../src/batch/codecs/zstd.js';
import { compressBatch, decompressRecords } from '../../src/batch/compression.js';
import { attributesOf, CODECS, type Codec, codecOf, recordCountOf, writeInt32 } from '../../src/batch/layout.js';
import { openRecords, RecordCursor } from '../../src/batch/records.js';
import { checkBatch, validateForAppend } from '../../src/batch/validate.js';
import { fc } from '../support/properties.js';
import { altered, batchOf, errorOf, hex, readAll, reasonOf, record, T0, withSection } from './support.js';

const COMPRESSING = CODECS.filter((codec) => codec !== 'none');
const LIMIT = 8 * 1024 * 1024;
const TEXT = Buffer.from('{"id":"o1","cents":999,"user":"user-17"}'.repeat(50));

/** Compressible, of `length` bytes, the same at every call. */
function sample(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * i) % 251 < 200 ? 97 + (i % 7) : i % 256;
  return bytes;
}

/** As `toEqual`, which takes seconds for a megabyte. */
function expectBytes(actual: Buffer, expected: Buffer): void {
  expect([actual.length, actual.equals(expected)]).toEqual([expected.length, true]);
}

async function compressed(section: Buffer, codec: Codec): Promise<Buffer> {
  // A batch around the section only lends its header to the compressor.
  return (await compressBatch(withSection(batchOf(['x']), section), codec)).subarray(61);
}

describe('compressBatch', () => {
  it.each(COMPRESSING)('makes a valid %s batch of the same records, and leaves the original alone', async (codec) => {
    const batch = batchOf(['a', 'b', TEXT.toString()], { leaderEpoch: 0, transactional: true });
    const before = Buffer.from(batch);
    const result = await compressBatch(batch, codec);
    expect(batch).toEqual(before);
    expect(result.length).toBeLessThan(batch.length);
    expect(checkBatch(result, 0, result.length)).toBeUndefined();
    expect(codecOf(attributesOf(result, 0))).toBe(codec);
    expect(attributesOf(result, 0) & ~7).toBe(0x10);
    expect(result.subarray(23, 61)).toEqual(batch.subarray(23, 61));
    expect(await readAll(result)).toEqual(await readAll(batch));
  });

  it('gives an uncompressed batch back as it is', async () => {
    const batch = batchOf(['a']);
    expect(await compressBatch(batch, 'none')).toBe(batch);
  });

  it('is told of a batch that is compressed already', async () => {
    const once = await compressBatch(batchOf(['a']), 'gzip');
    expect(await reasonOf(() => compressBatch(once, 'gzip'))).toBe('INTERNAL');
  });

  it.each(COMPRESSING)('keeps any records through %s', async (codec) => {
    const bytes = fc.option(fc.uint8Array({ maxLength: 300 }), { nil: null });
    const headers = fc.array(fc.record({ key: fc.string({ maxLength: 5 }), value: bytes }), { maxLength: 2 });
    const one = fc.record({ timestampMs: fc.nat(T0), key: bytes, value: bytes, headers });
    await fc.assert(
      fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 20 }), async (records) => {
        const batch = encodeBatch(records);
        const result = await compressBatch(batch, codec);
        expect(await readAll(result)).toEqual(await readAll(batch));
      }),
      { numRuns: 60 },
    );
  });

  it.each(COMPRESSING)('works by %s on both sides of the sizes where the thread pool takes over', async (codec) => {
    for (const length of [0, 1, 16_383, 16_384, 16_385, 131_073, 1_500_000]) {
      const section = sample(length);
      const data = await compressed(section, codec);
      expectBytes(await decompressRecords(data, codec, Math.max(length, 1)), section);
    }
  });
});

describe('openRecords', () => {
  it('opens an uncompressed batch at once and a compressed one in a promise', async () => {
    expect(openRecords(batchOf(['a']))).toBeInstanceOf(RecordCursor);
    expect(openRecords(await compressBatch(batchOf(['a']), 'lz4'))).toBeInstanceOf(Promise);
  });

  it.each(COMPRESSING)('refuses more %s records than decompressed', async (codec) => {
    const batch = await compressBatch(encodeBatch([record('a'.repeat(100))]), codec);
    for (const [count, text] of [
      [2, 'claims'],
      [50, 'cannot fit'],
    ] as const) {
      const lying = altered(batch, (b) => {
        writeInt32(b, 23, count - 1);
        writeInt32(b, 57, count);
      });
      // The header alone does not show it.
      expect(recordCountOf(lying, 0)).toBe(count);
      expect(await reasonOf(() => readAll(lying)), text).toBe('CORRUPT_MESSAGE');
      if (count === 50) expect(await reasonOf(() => openRecords(lying))).toBe('CORRUPT_MESSAGE');
    }
  });

  it('refuses an lz4 section that decompresses to nothing', async () => {
    const batch = await compressBatch(batchOf(['a']), 'lz4');
    const nothing = hex('04224d18604082' + '00000000');
    expect(await decompressRecords(nothing, 'lz4', LIMIT)).toHaveLength(0);
    expect(await reasonOf(() => readAll(withSection(batch, nothing)))).toBe('CORRUPT_MESSAGE');
    expect(await reasonOf(() => readAll(withSection(batch, hex('00'))))).toBe('CORRUPT_MESSAGE');
  });

  it('accepts on append what a reader then refuses to unpack', async () => {
    const batch = await compressBatch(encodeBatch([record('a'.repeat(1_000))]), 'zstd');
    const limits = {
      maxBatchBytes: 1_000,
      nowMs: T0,
      timestampAfterMaxMs: 1,
      timestampBeforeMaxMs: 1,
      logAppendTime: false,
    };
    expect(validateForAppend(batch, limits)).toBeUndefined();
    const decode = { maxRecords: 10, maxDecompressedBytes: 999 };
    expect(await reasonOf(() => readAll(batch, decode))).toBe('MESSAGE_TOO_LARGE');
  });
});

describe('decompressRecords', () => {
  it.each(CODECS)('allows exactly the limit for %s, and not a byte more', async (codec) => {
    for (const length of [1_000, 300_000]) {
      const section = sample(length);
      const data = codec === 'none' ? section : await compressed(section, codec);
      expectBytes(await decompressRecords(data, codec, length), section);
      const error = await errorOf(() => decompressRecords(data, codec, length - 1));
      expect(error.reason).toBe('MESSAGE_TOO_LARGE');
      expect(error.metadata).toMatchObject({ max_bytes: String(length - 1) });
    }
  });

  it.each(COMPRESSING)('refuses %s data cut off at any byte', async (codec) => {
    const data = await compressed(TEXT, codec);
    for (let end = 0; end < data.length; end++) {
      expect(await reasonOf(() => decompressRecords(data.subarray(0, end), codec, LIMIT)), `at ${end}`).toBe(
        'CORRUPT_MESSAGE',
      );
    }
  });

  it.each(COMPRESSING)('refuses what is no %s data', async (codec) => {
    for (const data of [Buffer.alloc(0), Buffer.alloc(1), Buffer.alloc(100), Buffer.alloc(100, 0xff), TEXT]) {
      const reason = await reasonOf(async () => {
        const result = await decompressRecords(data, codec, LIMIT);
        // Snappy's one byte 00 is a valid block of nothing.
        if (result.length === 0) throw await errorOf(() => readAll(withSection(batchOf(['a']), result)));
      });
      expect(reason).toBe('CORRUPT_MESSAGE');
    }
  });

  it('names the codec and the cause', async () => {
    const error = await errorOf(() => decompressRecords(Buffer.alloc(40, 7), 'gzip', LIMIT));
    expect(error.message).toMatch(/^The records are not valid gzip data: /);
    expect(error.metadata).toEqual({ compression_type: 'gzip' });
  });
});

describe('foreign framing', () => {
  const [one, two, three] = [TEXT.subarray(0, 700), TEXT.subarray(700, 1_400), TEXT.subarray(1_400)];
  const parts = [one, two, three] as const;
  const skippable = hex('5d2a4d18' + '03000000' + 'aabbcc');

  it('gzip: reads several members, and other levels', async () => {
    const members = Buffer.concat(parts.map((part, i) => gzipSync(part, { level: [1, 9, 0][i]! })));
    expect(await decompressRecords(members, 'gzip', TEXT.length)).toEqual(TEXT);
    // The size at the end is that of the last member only.
    expect(await reasonOf(() => decompressRecords(members, 'gzip', TEXT.length - 1))).toBe('MESSAGE_TOO_LARGE');
    const many = Array.from({ length: 140 }, () => gzipSync(TEXT));
    expectBytes(
      await decompressRecords(Buffer.concat([...many, gzipSync('x')]), 'gzip', LIMIT),
      Buffer.concat([...many.map(() => TEXT), Buffer.from('x')]),
    );
  });

  it('snappy: reads the block stream of Java clients', async () => {
    const header = hex('82534e4150505900' + '00000001' + '00000001');
    const blocks = parts.map((part) => {
      const block = snappy.compressSync(part);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(block.length);
      return Buffer.concat([length, block]);
    });
    const stream = Buffer.concat([header, ...blocks]);
    expect(await decompressRecords(stream, 'snappy', TEXT.length)).toEqual(TEXT);
    expect(await reasonOf(() => decompressRecords(stream, 'snappy', TEXT.length - 1))).toBe('MESSAGE_TOO_LARGE');
    for (const end of [12, 18, stream.length - 1]) {
      expect(await reasonOf(() => decompressRecords(stream.subarray(0, end), 'snappy', LIMIT))).toBe('CORRUPT_MESSAGE');
    }
    const many = Buffer.concat([header, ...Array.from({ length: 3_000 }, () => Buffer.concat(blocks))]);
    expect((await decompressRecords(many, 'snappy', LIMIT)).length).toBe(3_000 * TEXT.length);
  });

  it('lz4: reads frames with checksums, without, of Java clients, of several blocks', async () => {
    const flags: string[] = [];
    for (const contentChecksum of [false, true]) {
      for (const blockChecksums of [false, true]) {
        const frame = lz4.compressFrameSync(TEXT, { contentChecksum, blockChecksums });
        flags.push(frame.subarray(4, 5).toString('hex'));
        expect(await decompressRecords(frame, 'lz4', TEXT.length)).toEqual(TEXT);
      }
    }
    expect(flags).toEqual(['60', '70', '64', '74']);
    // As Java and librdkafka write it: independent blocks of up to 64 KiB; here stored ones.
    const blocks = parts.flatMap((part) => {
      const size = Buffer.alloc(4);
      size.writeUInt32LE((part.length | 0x8000_0000) >>> 0);
      return [size, part];
    });
    const java = Buffer.concat([hex('04224d18604082'), ...blocks, Buffer.alloc(4)]);
    expect(await decompressRecords(java, 'lz4', TEXT.length)).toEqual(TEXT);
    const large = sample(9_000_000);
    expectBytes(await decompressRecords(lz4.compressFrameSync(large), 'lz4', large.length), large);
  });

  it('lz4: reads several frames and skips skippable ones', async () => {
    const frames = parts.flatMap((part) => [skippable, lz4.compressFrameSync(part)]);
    expect(await decompressRecords(Buffer.concat([...frames, skippable]), 'lz4', TEXT.length)).toEqual(TEXT);
  });

  it('lz4: counts short blocks before it refuses them', async () => {
    const zeros = lz4.compressFrameSync(Buffer.alloc(1_000));
    const many = Buffer.concat(Array.from({ length: 100 }, () => zeros));
    expect(zeros.length * 255 * 100).toBeGreaterThan(100_000 * 4);
    expect((await decompressRecords(many, 'lz4', 100_000)).equals(Buffer.alloc(100_000))).toBe(true);
    expect(await reasonOf(() => decompressRecords(many, 'lz4', 99_999))).toBe('MESSAGE_TOO_LARGE');
  });

  it('lz4: refuses dictionaries, other versions, and bytes behind the frame', async () => {
    const frame = lz4.compressFrameSync(TEXT);
    const changed = (at: number, value: number): Buffer => {
      const copy = Buffer.from(frame);
      copy[at] = value;
      return copy;
    };
    const cases = [changed(4, 0x61), changed(4, 0xa0), changed(5, 0x30), Buffer.concat([frame, TEXT])];
    for (const data of cases)
      expect(await reasonOf(() => decompressRecords(data, 'lz4', LIMIT))).toBe('CORRUPT_MESSAGE');
  });

  it('lz4 and zstd: refuse thousands of frames', async () => {
    for (const codec of ['lz4', 'zstd'] as const) {
      const frame = await compressed(Buffer.from('x'), codec);
      const frames = Buffer.concat(Array.from({ length: 1_001 }, () => frame));
      expect(await reasonOf(() => decompressRecords(frames, codec, LIMIT))).toBe('CORRUPT_MESSAGE');
      expect(await decompressRecords(frames.subarray(0, 1_000 * frame.length), codec, LIMIT)).toHaveLength(1_000);
    }
  });
});

const builtIn = 'zstdCompress' in zlib;
const implementations: [name: string, available: boolean, library: Partial<BuiltInZstd>][] = [
  ['the package', true, {}],
  ["Node's zlib, which has it from 22.15 on", builtIn, zlib as Partial<BuiltInZstd>],
];

describe.each(implementations)('zstd by %s', (_name, available, library) => {
  const codec = createZstdCodec(library);
  const text = TEXT.subarray(0, 1_000);

  it.skipIf(!available)('reads several frames and skips skippable ones, first, between and last', async () => {
    const skippable = hex('502a4d18' + '03000000' + 'aabbcc');
    const frame = await codec.compress(text);
    const data = Buffer.concat([skippable, frame, skippable, frame, skippable]);
    expect(await codec.decompress(data, 2_000)).toEqual(Buffer.concat([text, text]));
    expect(await reasonOf(() => codec.decompress(data, 1_999))).toBe('MESSAGE_TOO_LARGE');
  });

  it.skipIf(!available)('reads frames without a content size, and with one', async () => {
    // Two raw blocks of 3 and 2 bytes: with a window descriptor, then as a single segment that declares 5 bytes.
    const blocks = '180000' + '616263' + '110000' + '6465';
    for (const header of ['28b52ffd0058', '28b52ffd2005']) {
      expect((await codec.decompress(hex(header + blocks), 5)).toString()).toBe('abcde');
      expect(await reasonOf(() => codec.decompress(hex(header + blocks), 4))).toBe('MESSAGE_TOO_LARGE');
    }
  });

  it.skipIf(!available)('refuses at once what declares more than the limit', async () => {
    const declares = hex('28b52ffd' + 'e0' + '0000000001000000' + '010000');
    const error = await errorOf(() => codec.decompress(declares, LIMIT));
    expect(error.reason).toBe('MESSAGE_TOO_LARGE');
    expect(error.metadata).toMatchObject({ actual_bytes: String(2 ** 32) });
  });

  it.skipIf(!available)('reads what its bound alone would refuse', async () => {
    const frames = await Promise.all(Array.from({ length: 20 }, () => codec.compress(text)));
    // The smallest frames: three stored bytes, then nothing.
    const data = Buffer.concat([...frames, hex('28b52ffd0058190000616263'), hex('28b52ffd0058010000')]);
    const expected = Buffer.concat([...frames.map(() => text), Buffer.from('abc')]);
    expectBytes(await codec.decompress(data, 20_003), expected);
    expect(await reasonOf(() => codec.decompress(data, 20_002))).toBe('MESSAGE_TOO_LARGE');
  });

  it.skipIf(!available)(
    'refuses dictionaries, reserved bits and types, and windows that no decoder takes',
    async () => {
      for (const broken of [
        '28b52ffd015801010000',
        '28b52ffd0858010000',
        '28b52ffd0058070000',
        '28b52ffd00f0010000',
        `28b52ffd00580d0010${'00'.repeat(10)}`,
      ]) {
        expect(await reasonOf(() => codec.decompress(hex(broken), LIMIT)), broken).toBe('CORRUPT_MESSAGE');
      }
    },
  );
});

describe('a codec whose library cannot be loaded', () => {
  afterEach(() => {
    vi.resetModules();
    for (const name of ['snappy', 'lz4-napi', '@mongodb-js/zstd']) vi.doUnmock(name);
  });

  it.each([
    ['snappy', 'snappy'],
    ['lz4', 'lz4-napi'],
    ['zstd', '@mongodb-js/zstd'],
  ] as const)('costs batches of %s only', async (codec, packageName) => {
    const data = await compressed(TEXT, codec);
    const batch = batchOf(['a']);
    vi.resetModules();
    vi.doMock(packageName, () => {
      throw new Error('no prebuilt binary for this platform');
    });
    const fresh = await import('../../src/batch/compression.js');
    const { createZstdCodec: freshZstd } = await import('../../src/batch/codecs/zstd.js');
    const attempts =
      codec === 'zstd'
        ? [() => freshZstd({}).compress(TEXT), () => freshZstd({}).decompress(data, LIMIT)]
        : [() => fresh.compressBatch(batch, codec), () => fresh.decompressRecords(data, codec, LIMIT)];
    for (const attempt of attempts) {
      await expect(attempt()).rejects.toMatchObject({
        reason: 'UNSUPPORTED_COMPRESSION_TYPE',
        metadata: { compression_type: codec },
      });
    }
    expect(await fresh.compressBatch(batch, 'gzip')).toBeInstanceOf(Buffer);
  });
});
