/**
 * For each key the offset of its latest record, in memory of a fixed size.
 *
 *     slot = digest 16 bytes, offset float64      24 bytes, as Kafka counts them
 *
 * Keys of up to 15 bytes stand in the digest as they are: the bytes, zeros, and the length as the last byte. Longer ones
 * stand as the first 16 bytes of their SHA-256 with the highest bit of the last byte set, so that the two kinds never
 * meet. Two long keys meet with a chance of 2^-127 for each pair; nobody can make them meet, which a faster hash would
 * not promise.
 */
import * as crypto from 'node:crypto';

/** Memory of one slot. */
export const SLOT_BYTES = 24;
/** Slots in use at most: probing gets slow when few are free. */
const LOAD_FACTOR = 0.9;
const MIN_SLOTS = 16;

const DIGEST_BYTES = 16;
const WORDS = DIGEST_BYTES / 4;
const MAX_EXACT_BYTES = DIGEST_BYTES - 1;
const HASHED_BIT = 0x80;
const FREE = -1;

/** Node has a function that hashes in one call, at half the cost, since 20.12. */
const sha256: (bytes: Buffer) => Buffer =
  typeof crypto.hash === 'function'
    ? (bytes) => crypto.hash('sha256', bytes, 'buffer')
    : (bytes) => crypto.createHash('sha256').update(bytes).digest();

/** Open addressing with linear probing. Invariant: a slot whose offset is -1 is free. */
export class KeyMap {
  readonly #slots: number;
  readonly #maxKeys: number;
  readonly #words: Uint32Array;
  readonly #offsets: Float64Array;
  /** Digest of the key asked for last. */
  readonly #digest = Buffer.alloc(DIGEST_BYTES);
  readonly #digestWords = new Uint32Array(WORDS);
  #size = 0;

  /**
   * @param maxBytes memory at most, though a few keys always fit
   * @param maxKeys keys that can come at most: no more memory is taken than these need
   */
  constructor(maxBytes: number, maxKeys: number) {
    const affordable = Math.floor(maxBytes / SLOT_BYTES);
    const wanted = Math.ceil(maxKeys / LOAD_FACTOR) + 1;
    this.#slots = Math.max(MIN_SLOTS, Math.min(affordable, wanted));
    this.#maxKeys = Math.floor(this.#slots * LOAD_FACTOR);
    this.#words = new Uint32Array(this.#slots * WORDS);
    this.#offsets = new Float64Array(this.#slots).fill(FREE);
  }

  /** Keys in it. */
  get size(): number {
    return this.#size;
  }

  get byteLength(): number {
    return this.#words.byteLength + this.#offsets.byteLength;
  }

  /**
   * Notes a record of the key `buf[start, start + length)`; a later call for the same key replaces an earlier one.
   * @returns false, nothing being changed, when the key is new and there is no room for it
   */
  put(buf: Buffer, start: number, length: number, offset: number): boolean {
    const slot = this.#find(buf, start, length);
    if (this.#offsets[slot] === FREE) {
      if (this.#size === this.#maxKeys) return false;
      this.#size++;
      this.#words.set(this.#digestWords, slot * WORDS);
    }
    this.#offsets[slot] = offset;
    return true;
  }

  /** Offset of the latest record of a key; -1 when there is none. */
  get(buf: Buffer, start: number, length: number): number {
    return this.#offsets[this.#find(buf, start, length)]!;
  }

  /** The slot of a key, or the free one where it belongs. */
  #find(buf: Buffer, start: number, length: number): number {
    this.#takeDigest(buf, start, length);
    const [a, b, c, d] = this.#digestWords as unknown as readonly [number, number, number, number];
    const words = this.#words;
    // Multiplied with the number of slots and cut to the high half: even where the low bits of a hash are not.
    let slot = Math.floor((mix(a, b, c, d) / 0x1_0000_0000) * this.#slots);
    for (;;) {
      if (this.#offsets[slot] === FREE) return slot;
      const at = slot * WORDS;
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) return slot;
      slot = slot + 1 === this.#slots ? 0 : slot + 1;
    }
  }

  #takeDigest(buf: Buffer, start: number, length: number): void {
    const digest = this.#digest;
    if (length <= MAX_EXACT_BYTES) {
      for (let i = 0; i < length; i++) digest[i] = buf[start + i]!;
      digest.fill(0, length, MAX_EXACT_BYTES);
      digest[MAX_EXACT_BYTES] = length;
    } else {
      sha256(buf.subarray(start, start + length)).copy(digest, 0, 0, DIGEST_BYTES);
      digest[MAX_EXACT_BYTES] = digest[MAX_EXACT_BYTES]! | HASHED_BIT;
    }
    for (let i = 0; i < WORDS; i++) this.#digestWords[i] = digest.readUInt32LE(i * 4);
  }
}

/** 32 well mixed bits of four words, which may be as regular as counters (the finaliser of MurmurHash3, word by word). */
function mix(a: number, b: number, c: number, d: number): number {
  let hash = scramble(a);
  hash = scramble(hash ^ b);
  hash = scramble(hash ^ c);
  return scramble(hash ^ d) >>> 0;
}

function scramble(value: number): number {
  let hash = value ^ (value >>> 16);
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
