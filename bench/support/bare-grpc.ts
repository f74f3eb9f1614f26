import type { MethodDefinition } from '@grpc/grpc-js';

/** Flow-control window of both sides, as the broker and the SDK set it. */
export const WINDOW_BYTES: number = 4 * 1024 * 1024;

const same = (bytes: Buffer): Buffer => bytes;

/** A bidirectional stream of opaque messages. */
export const BARE_METHOD: MethodDefinition<Buffer, Buffer> = {
  path: '/bench.Bare/Stream',
  requestStream: true,
  responseStream: true,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
};
