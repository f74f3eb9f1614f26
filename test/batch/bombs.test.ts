import { deflateRawSync, gzipSync } from 'node:zlib';
import lz4 from 'lz4-napi';
import snappy from 'snappy';
import { beforeAll, describe, expect, it } from 'vitest';
import { createZstdCodec } from '../../src/batch/codecs/zstd.js';
import { compressBatch, decompressRecords } from '../../src/batch/compression.js';
import { CODECS, type Codec } from '../../src/batch/layout.js';
import { longestTurnMs } from '../support/loop-delay.js';
import { batchOf, errorOf, hex } from './support.js';

const MIB = 1024 * 1024;
const LIMIT = 4 * MIB;
/** What a process may grow beyond the limit: buffers of the libraries, and garbage not yet collected. */
const ALLOWANCE = 48 * MIB;

const zstdPackage = createZstdCodec({});
const packageLimited = (data: Buffer): Promise<Buffer> => zstdPackage.decompress(data, LIMIT);

function repeat(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes));
}

/** A Zstandard frame of `blocks` blocks that each repeat one byte 128 Ki times. */
function zstdBomb(header: string, blocks: number): Buffer {
  const block = hex('020010' + '00');
  const last = hex('030010' + '00');
  return Buffer.concat([hex(header), repeat(block, blocks - 1), last]);
}

/** One snappy block of `bytes` zeros: a literal, then copies of 64 bytes. */
function snappyBomb(bytes: number): Buffer {
  const length = [0, 7, 14, 21].map((shift) => ((bytes >>> shift) & 0x7f) | (shift < 21 ? 0x80 : 0));
  const copies = Buffer.alloc((bytes / 64) * 3, Buffer.from([0xfe, 0x01, 0x00]));
  return Buffer.concat([Buffer.from([...length, 0x00, 0x00]), copies]);
}

/** Members of 4 MiB of zeros each. */
function gzipMembers(times: number): Buffer {
  return repeat(gzipSync(Buffer.alloc(4 * MIB)), times);
}

function gzipDeclaring(size: number): Buffer {
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(size, 4);
  return Buffer.concat([hex('1f8b0800000000000003'), deflateRawSync(Buffer.alloc(32 * MIB)), trailer]);
}

describe('a decompression bomb', () => {
  beforeAll(async () => {
    // The libraries are loaded, and have warmed up, before memory is measured.
    for (const codec of CODECS.filter((each) => each !== 'none')) {
      const batch = await compressBatch(batchOf(['x'.repeat(200_000)]), codec);
      await decompressRecords(batch.subarray(61), codec, LIMIT);
    }
    await zstdPackage.decompress(await zstdPackage.compress(Buffer.alloc(200_000)), LIMIT);
  });

  const xerial = hex('82534e4150505900' + '00000001' + '00000001');
  const withLength = (block: Buffer): Buffer => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(block.length);
    return Buffer.concat([length, block]);
  };

  const bombs: [what: string, codec: Codec, make: () => Buffer][] = [
    ['gzip of 256 MiB', 'gzip', () => gzipMembers(64)],
    ['gzip that declares its 32 MiB', 'gzip', () => gzipDeclaring(32 * MIB)],
    ['gzip of 32 MiB that declares 10 bytes', 'gzip', () => gzipDeclaring(10)],
    ['snappy of 256 MiB', 'snappy', () => snappyBomb(255 * MIB)],
    ['snappy of 256 MiB in blocks', 'snappy', () => Buffer.concat([xerial, repeat(withLength(snappyBomb(MIB)), 256)])],
    ['lz4 of 256 MiB', 'lz4', () => repeat(lz4.compressFrameSync(Buffer.alloc(4 * MIB)), 64)],
    ['zstd of 256 MiB', 'zstd', () => zstdBomb('28b52ffd0058', 2_048)],
    ['zstd of 32 GiB', 'zstd', () => zstdBomb('28b52ffd0058', 262_144)],
  ];

  it.each(bombs)('of %s is refused without its memory (invariant 21)', async (_what, codec, make) => {
    const data = make();
    const before = process.resourceUsage().maxRSS;
    const error = await errorOf(() => decompressRecords(data, codec, LIMIT));
    expect(error.reason).toBe('MESSAGE_TOO_LARGE');
    expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(LIMIT + ALLOWANCE);
  });

  it('of zstd that declares a few bytes is refused, as one or the other', async () => {
    const liar = zstdBomb('28b52ffd40580500', 2_048);
    for (const decompress of [(data: Buffer) => decompressRecords(data, 'zstd', LIMIT), packageLimited]) {
      const before = process.resourceUsage().maxRSS;
      expect(['MESSAGE_TOO_LARGE', 'CORRUPT_MESSAGE']).toContain((await errorOf(() => decompress(liar))).reason);
      expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(LIMIT + ALLOWANCE);
    }
  });

  it('of zstd is refused by the package too, whatever this Node brings itself', async () => {
    for (const blocks of [2_048, 262_144]) {
      const before = process.resourceUsage().maxRSS;
      const error = await errorOf(() => zstdPackage.decompress(zstdBomb('28b52ffd0058', blocks), LIMIT));
      expect(error.reason).toBe('MESSAGE_TOO_LARGE');
      expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(LIMIT + ALLOWANCE);
    }
  });

  it('of many blocks under a wide window is refused before minutes of moving memory (invariant 22)', async () => {
    // Each block makes 1,000 bytes of few, so that all would fit; each would move a window of 128 MiB.
    const frame = await zstdPackage.compress(Buffer.alloc(1_000, 'abcdefghijklmnop'));
    const block = frame.subarray(6);
    block[0]! &= 0xfe; // not the last one
    const data = Buffer.concat([hex('28b52ffd0088'), repeat(block, 300), hex('010000')]);
    const before = process.resourceUsage().maxRSS;
    expect((await errorOf(() => packageLimited(data))).reason).toBe('MESSAGE_TOO_LARGE');
    expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(ALLOWANCE);
  });

  const lies: [what: string, codec: Codec, data: Buffer][] = [
    ['gzip', 'gzip', Buffer.concat([gzipSync(Buffer.from('x')).subarray(0, -4), hex('00000040')])],
    ['snappy', 'snappy', Buffer.concat([hex('8080808004'), snappy.compressSync('x').subarray(1)])],
    ['snappy, within the limit', 'snappy', Buffer.concat([hex('80808001'), snappy.compressSync('x').subarray(1)])],
  ];

  it.each(lies)('that only claims to be one is called corrupt (%s)', async (_what, codec, data) => {
    const before = process.resourceUsage().maxRSS;
    expect((await errorOf(() => decompressRecords(data, codec, LIMIT))).reason).toBe('CORRUPT_MESSAGE');
    expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(ALLOWANCE);
  });

  // Last, because it takes memory in earnest.
  it('that is none after all is decompressed without holding up the event loop (invariant 22)', async () => {
    // The blocks are within the limit, but not what the frames behind them could be by their framing.
    const small = await zstdPackage.compress(Buffer.alloc(1_000, 'abcdefghijklmnop'));
    const data = Buffer.concat([zstdBomb('28b52ffd0060', 400), repeat(small, 200)]);
    const startedMs = performance.now();
    const longestMs = await longestTurnMs(async () => {
      expect(await zstdPackage.decompress(data, 64 * MIB)).toHaveLength(400 * 128 * 1024 + 200_000);
    });
    const tookMs = performance.now() - startedMs;
    expect(longestMs).toBeLessThan(Math.max(100, tookMs / 2));
  });
});
