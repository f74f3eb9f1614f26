/** The memory of a compaction pass: for each key, where its latest record lies. */
import * as crypto from 'node:crypto';
import { assert } from '../../core/assert.js';

/** Digest of 16 bytes, then offset + 1 as two halves: 0 marks a free slot. */
const WORDS_PER_SLOT = 6;
export const BYTES_PER_SLOT: number = WORDS_PER_SLOT * 4;
/** Share of the slots that is filled at most; beyond it the search for a free one grows long. */
const LOAD_FACTOR = 0.9;
/** However little memory is granted: a pass that maps nothing would never get on. */
const MIN_SLOTS = 4;

/** Longest key that a slot holds as it is, its length in the last byte. */
const MAX_EXACT_BYTES = 15;
/** Set in the last byte of a digest made by a hash: no exact one has it. */
const HASHED_BIT = 0x80;

const TWO_POW_32 = 0x1_0000_0000;
const DEFAULT_SEED = 0x9747b28c;

/** Several times faster than a `Hash` object, where this Node has it (20.12 and later). */
const sha256: (bytes: Uint8Array) => Uint8Array =
  typeof crypto.hash === 'function'
    ? (bytes) => crypto.hash('sha256', bytes, 'buffer')
    : (bytes) => crypto.createHash('sha256').update(bytes).digest();

/**
 * A map from key bytes to an offset, of bounded size: 24 bytes a slot, open addressing with linear probing.
 *
 * Keys of up to 15 bytes are held exactly. Longer ones are held by 127 bits of their SHA-256: two of them are taken for
 * one with a probability of about 2^-127 a pair, 2^-80 or less among a hundred million keys. That is accepted.
 *
 * Invariant: at least one slot is free, so that every search ends.
 */
export class KeyMap {
  readonly #words: Uint32Array;
  readonly #slots: number;
  readonly #maxKeys: number;
  readonly #seed: number;
  /** The key being looked for, in the form a slot holds. */
  readonly #digest = new Uint32Array(4);
  #size = 0;

  /**
   * @param maxBytes memory that the slots may take; a few are there in any case
   * @param maxKeys most keys that will be put, if that needs less
   * @param seed of the slots' order
   */
  constructor(maxBytes: number, maxKeys: number, seed: number = DEFAULT_SEED) {
    assert(maxBytes >= 0 && maxKeys >= 0, 'the bounds of a key map are not negative');
    const affordable = Math.floor(maxBytes / BYTES_PER_SLOT);
    const needed = Math.ceil(maxKeys / LOAD_FACTOR) + 1;
    this.#slots = Math.max(Math.min(affordable, needed), MIN_SLOTS);
    this.#maxKeys = Math.floor(this.#slots * LOAD_FACTOR);
    // Memory that is zero from the start costs nothing until it is used.
    this.#words = new Uint32Array(this.#slots * WORDS_PER_SLOT);
    this.#seed = seed | 0;
  }

  get size(): number {
    return this.#size;
  }

  /** Whether a key that is not there yet would be refused. */
  get isFull(): boolean {
    return this.#size === this.#maxKeys;
  }

  /** Memory of the slots. */
  get byteLength(): number {
    return this.#words.byteLength;
  }

  /**
   * Sets the offset, a safe integer >= 0, of the key that `buf` holds at `start`.
   * @returns false when the map is full and the key not in it: nothing has changed
   */
  put(buf: Uint8Array, start: number, length: number, offset: number): boolean {
    this.#setDigest(buf, start, length);
    const at = this.#find();
    const words = this.#words;
    if (isFree(words, at)) {
      if (this.#size === this.#maxKeys) return false;
      words.set(this.#digest, at);
      this.#size++;
    }
    const stored = offset + 1;
    words[at + 4] = Math.floor(stored / TWO_POW_32);
    words[at + 5] = stored;
    return true;
  }

  /** The offset of the key that `buf` holds at `start`; -1 when it is not there. */
  get(buf: Uint8Array, start: number, length: number): number {
    this.#setDigest(buf, start, length);
    const at = this.#find();
    return this.#words[at + 4]! * TWO_POW_32 + this.#words[at + 5]! - 1;
  }

  /** How many slots a search for the key looks at: what the order of the slots is judged by. */
  probesFor(buf: Uint8Array, start: number, length: number): number {
    this.#setDigest(buf, start, length);
    const distance = this.#find() / WORDS_PER_SLOT - this.#firstSlot();
    return (distance < 0 ? distance + this.#slots : distance) + 1;
  }

  #setDigest(buf: Uint8Array, start: number, length: number): void {
    const digest = this.#digest;
    if (length > MAX_EXACT_BYTES) {
      const hash = sha256(buf.subarray(start, start + length));
      for (let i = 0; i < 4; i++) digest[i] = word(hash, i * 4);
      digest[3] = digest[3]! | HASHED_BIT;
      return;
    }
    digest.fill(0);
    for (let i = 0; i < length; i++) {
      const shift = 24 - 8 * (i & 3);
      digest[i >> 2] = digest[i >> 2]! | (buf[start + i]! << shift);
    }
    digest[3] = digest[3]! | length;
  }

  /** Position of the slot that holds the digest, or of the free one where it belongs. */
  #find(): number {
    const words = this.#words;
    const end = words.length;
    const digest = this.#digest;
    const a = digest[0]!;
    const b = digest[1]!;
    const c = digest[2]!;
    const d = digest[3]!;
    let at = this.#firstSlot() * WORDS_PER_SLOT;
    while (!isFree(words, at)) {
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) return at;
      at += WORDS_PER_SLOT;
      if (at === end) at = 0;
    }
    return at;
  }

  /** The slot where the search begins: MurmurHash3 of the digest, because short keys are anything but random. */
  #firstSlot(): number {
    let hash = this.#seed;
    for (let i = 0; i < 4; i++) {
      const mixed = Math.imul(this.#digest[i]!, 0xcc9e2d51);
      hash ^= Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
      hash = Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64;
    }
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
    return Math.floor(((hash >>> 0) * this.#slots) / TWO_POW_32);
  }
}

function isFree(words: Uint32Array, at: number): boolean {
  return words[at + 5] === 0 && words[at + 4] === 0;
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}
