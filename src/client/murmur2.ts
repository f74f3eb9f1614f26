/** The hash that Java's default partitioner uses: murmur2, 32 bits, over the bytes of a key. */

const SEED = 0x9747b28c;
const M = 0x5bd1e995;
const R = 24;

/** murmur2 of `bytes` with Kafka's seed, as a signed 32-bit number. */
export function murmur2(bytes: Uint8Array): number {
  const length = bytes.length;
  let hash = SEED ^ length;
  const tailStart = length & ~3;
  for (let i = 0; i < tailStart; i += 4) {
    // The index is below the length, so the bytes are there.
    let k = bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    k = Math.imul(k, M);
    k ^= k >>> R;
    hash = Math.imul(hash, M) ^ Math.imul(k, M);
  }
  const tail = length - tailStart;
  if (tail === 3) hash ^= bytes[tailStart + 2]! << 16;
  if (tail >= 2) hash ^= bytes[tailStart + 1]! << 8;
  if (tail >= 1) hash = Math.imul(hash ^ bytes[tailStart]!, M);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, M);
  return hash ^ (hash >>> 15);
}
