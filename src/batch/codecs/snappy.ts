/**
 * Snappy by the package `snappy`. Written as one raw block; read as that or as the block stream of Java's `xerial`
 * library, which Kafka's Java clients write:
 *
 *     raw    = decompressedLength uvarint, elements
 *     xerial = 82 'SNAPPY' 00, version i32, compatibleVersion i32, (length i32, raw)*
 */
import {
  corruptByLibrary,
  corruptSection,
  decompressedTooLarge,
  loadLibrary,
  type SectionCodec,
  SYNC_INPUT_BYTES,
  SYNC_OUTPUT_BYTES,
} from './codec.js';

type SnappyLibrary = typeof import('snappy');

const XERIAL_MAGIC: Buffer = Buffer.from('82534e4150505900', 'hex');
const XERIAL_HEADER_BYTES = 16;
const XERIAL_LENGTH_BYTES = 4;
/** The densest element copies 64 bytes and takes 3 bytes. */
const MAX_EXPANSION = 22;
/** Most bytes of the leading length: it is a 32-bit number. */
const MAX_PREAMBLE_BYTES = 5;
/** Counted for each block beside its bytes, so that a stream of tiny blocks does not run at once either. */
const BLOCK_COST_BYTES = 256;

let library: Promise<SnappyLibrary> | undefined;

function loadSnappy(): Promise<SnappyLibrary> {
  library ??= loadLibrary('snappy', 'snappy', () => import('snappy'));
  return library;
}

export const snappyCodec: SectionCodec = {
  async compress(section: Buffer): Promise<Buffer> {
    const snappy = await loadSnappy();
    return section.length <= SYNC_INPUT_BYTES ? snappy.compressSync(section) : snappy.compress(section);
  },

  async decompress(section: Buffer, maxBytes: number): Promise<Buffer> {
    const snappy = await loadSnappy();
    if (isXerial(section)) return decompressXerial(snappy, section, maxBytes);
    const bytes = decompressedLength(section);
    if (bytes > maxBytes) throw decompressedTooLarge('snappy', maxBytes, bytes);
    return decompressBlock(snappy, section, section.length <= SYNC_INPUT_BYTES && bytes <= SYNC_OUTPUT_BYTES);
  },
};

function isXerial(section: Buffer): boolean {
  return section.subarray(0, XERIAL_MAGIC.length).equals(XERIAL_MAGIC);
}

async function decompressXerial(snappy: SnappyLibrary, section: Buffer, maxBytes: number): Promise<Buffer> {
  const blocks = xerialBlocks(section, maxBytes);
  const parts: Buffer[] = [];
  let doneAtOnce = 0;
  for (const block of blocks) {
    doneAtOnce += decompressedLength(block) + BLOCK_COST_BYTES;
    const atOnce = doneAtOnce <= SYNC_OUTPUT_BYTES;
    if (!atOnce) doneAtOnce = 0;
    parts.push(await decompressBlock(snappy, block, atOnce));
  }
  return Buffer.concat(parts);
}

/** The raw blocks of a xerial stream, whose sizes all together are within `maxBytes`. */
function xerialBlocks(section: Buffer, maxBytes: number): Buffer[] {
  const blocks: Buffer[] = [];
  let total = 0;
  let at = XERIAL_HEADER_BYTES;
  if (section.length < at) throw corruptSection('snappy', 'the xerial header is cut off');
  while (at < section.length) {
    const start = at + XERIAL_LENGTH_BYTES;
    if (start > section.length) throw corruptSection('snappy', 'the last block is cut off');
    const end = start + section.readUInt32BE(at);
    if (end > section.length) throw corruptSection('snappy', 'a block reaches beyond the end');
    const block = section.subarray(start, end);
    total += decompressedLength(block);
    if (total > maxBytes) throw decompressedTooLarge('snappy', maxBytes);
    blocks.push(block);
    at = end;
  }
  return blocks;
}

/** The length that a raw block declares, known to be possible. */
function decompressedLength(block: Buffer): number {
  let length = 0;
  let at = 0;
  let byte = 0x80;
  while (byte & 0x80) {
    if (at === block.length || at === MAX_PREAMBLE_BYTES) throw corruptSection('snappy', 'a block has no length');
    byte = block[at]!;
    length += (byte & 0x7f) * 2 ** (7 * at);
    at++;
  }
  if (length > (block.length - at) * MAX_EXPANSION) {
    throw corruptSection('snappy', `a block of ${block.length} bytes cannot hold the ${length} bytes that it declares`);
  }
  return length;
}

async function decompressBlock(snappy: SnappyLibrary, block: Buffer, atOnce: boolean): Promise<Buffer> {
  try {
    const records = atOnce
      ? snappy.uncompressSync(block, { asBuffer: true })
      : await snappy.uncompress(block, { asBuffer: true });
    if (typeof records !== 'string') return records;
  } catch (error) {
    throw corruptByLibrary('snappy', error);
  }
  throw corruptSection('snappy', 'the library answered with text');
}
