/**
 * CRC-32C (Castagnoli), the checksum of record batches. `zlib.crc32` of Node is another polynomial.
 *
 * `@node-rs/crc32` brings prebuilt native code for the common platforms (3-5 GB/s); where its addon cannot be loaded,
 * the pure JavaScript of `@aws-crypto/crc32c` takes over: slower, never wrong.
 */
import { createRequire } from 'node:module';
import { crc32c as javascriptCrc32c } from '@aws-crypto/crc32c';

export type Crc32cImplementation = '@node-rs/crc32' | '@aws-crypto/crc32c';

/** A CRC-32C function and the package it came from. */
export interface Crc32c {
  readonly implementation: Crc32cImplementation;
  readonly compute: (bytes: Uint8Array) => number;
}

/** The part of the native package that is used here. */
interface NativeCrc32 {
  readonly crc32c: (bytes: Uint8Array) => number;
}

/** Where the attributes begin: the first byte under a batch's CRC. `layout.ts` imports this file, so it stands here. */
const CRC_COVERS_FROM = 21;

/** CRC-32C of the ASCII digits 1 to 9, the check value of the algorithm's catalogue entry. */
const CHECK_INPUT: Uint8Array = Buffer.from('123456789', 'latin1');
const CHECK_VALUE = 0xe3069283;

function requireNative(): NativeCrc32 {
  const native: NativeCrc32 = createRequire(import.meta.url)('@node-rs/crc32');
  return native;
}

/**
 * The native implementation if `load` yields one that computes the check value, else the JavaScript one. A checksum
 * that is merely wrong would be taken for corruption of the whole log, hence the trial.
 */
export function selectCrc32c(load: () => NativeCrc32 = requireNative): Crc32c {
  try {
    const { crc32c: compute } = load();
    if (compute(CHECK_INPUT) === CHECK_VALUE) return { implementation: '@node-rs/crc32', compute };
  } catch {
    // No addon for this platform, or one that this Node cannot load.
  }
  return { implementation: '@aws-crypto/crc32c', compute: javascriptCrc32c };
}

const selected = selectCrc32c();

/** Which package computes the checksums in this process. */
export const crc32cImplementation: Crc32cImplementation = selected.implementation;

const compute = selected.compute;

/** CRC-32C of `bytes`, as an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  return compute(bytes);
}

/** The CRC that the header of the batch of `size` bytes at `at` should carry. */
export function computeBatchCrc(buf: Buffer, at: number, size: number): number {
  return compute(buf.subarray(at + CRC_COVERS_FROM, at + size));
}
