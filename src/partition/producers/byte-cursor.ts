/** Reading and writing the fields of side files: big-endian integers one after the other. */
import { writeInt32, writeInt64 } from '../../batch/layout.js';

const TWO_POW_32 = 0x1_0000_0000;

/** Fills a buffer from its beginning; what is written must fit. */
export class ByteWriter {
  readonly buffer: Buffer;
  #at = 0;

  constructor(sizeInBytes: number) {
    this.buffer = Buffer.alloc(sizeInBytes);
  }

  get position(): number {
    return this.#at;
  }

  i8(value: number): void {
    this.#at = this.buffer.writeInt8(value, this.#at);
  }

  i16(value: number): void {
    this.#at = this.buffer.writeInt16BE(value, this.#at);
  }

  /** Signed or unsigned. */
  i32(value: number): void {
    writeInt32(this.buffer, this.#at, value);
    this.#at += 4;
  }

  /** A safe integer. */
  i64(value: number): void {
    writeInt64(this.buffer, this.#at, value);
    this.#at += 8;
  }

  bytes(value: Uint8Array): void {
    this.buffer.set(value, this.#at);
    this.#at += value.length;
  }
}

/** Reads a buffer from its beginning. Every method throws an Error when there are too few bytes, or the value cannot be. */
export class ByteReader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  get left(): number {
    return this.#buffer.length - this.#at;
  }

  i8(): number {
    return this.#buffer.readInt8(this.#take(1));
  }

  i16(): number {
    return this.#buffer.readInt16BE(this.#take(2));
  }

  i32(): number {
    return this.#buffer.readInt32BE(this.#take(4));
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#take(4));
  }

  i64(): number {
    const at = this.#take(8);
    const value = this.#buffer.readInt32BE(at) * TWO_POW_32 + this.#buffer.readUInt32BE(at + 4);
    if (!Number.isSafeInteger(value)) throw new Error(`it holds the number ${value}`);
    return value;
  }

  /** A count of things that take at least `leastBytes` each. */
  count(leastBytes: number): number {
    const count = this.i32();
    if (count < 0 || count * leastBytes > this.left)
      throw new Error(`it counts ${count} where ${this.left} bytes are left`);
    return count;
  }

  bytes(length: number): Buffer {
    const at = this.#take(length);
    return this.#buffer.subarray(at, at + length);
  }

  #take(count: number): number {
    if (count > this.left) throw new Error('it ends too early');
    const at = this.#at;
    this.#at += count;
    return at;
  }
}
