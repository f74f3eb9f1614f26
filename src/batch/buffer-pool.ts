/**
 * Buffers of one size, used again. A producer fills and drops hundreds of large buffers a second; memory outside the
 * JavaScript heap makes V8 collect the whole heap again and again, which took a quarter of the client's time.
 */
export class BufferPool {
  readonly #bufferBytes: number;
  readonly #maxFree: number;
  readonly #free: Buffer[] = [];
  /** Memory that this pool has made: anything else may be shared with strangers. */
  readonly #own = new WeakSet<ArrayBufferLike>();

  /**
   * @param bufferBytes size of every pooled buffer
   * @param maxFreeBytes what unused buffers may take together
   */
  constructor(bufferBytes: number, maxFreeBytes: number) {
    this.#bufferBytes = bufferBytes;
    this.#maxFree = Math.floor(maxFreeBytes / bufferBytes);
  }

  /** A buffer of at least `bytes`, with whatever is in it. Sizes that would waste most of a pooled one are not pooled. */
  take(bytes: number): Buffer {
    if (bytes > this.#bufferBytes || bytes * 2 < this.#bufferBytes) return Buffer.allocUnsafe(bytes);
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const made = Buffer.allocUnsafeSlow(this.#bufferBytes);
    this.#own.add(made.buffer);
    return made;
  }

  /** Takes back the memory behind `buffer`, which nobody may use any more. Memory of others is ignored. */
  giveBack(buffer: Buffer): void {
    if (!this.#own.has(buffer.buffer) || this.#free.length >= this.#maxFree) return;
    this.#free.push(Buffer.from(buffer.buffer));
  }
}
