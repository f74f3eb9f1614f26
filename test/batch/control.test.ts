import { describe, expect, it } from 'vitest';
import { encodeTransactionMarker, MARKER_BATCH_BYTES, readTransactionMarker } from '../../src/batch/control.js';
import { newestRecordTimeOf, stampBatch } from '../../src/batch/layout.js';
import { altered, batchOf, T0, VECTORS } from './support.js';

const MARKER = { producerId: 4242, producerEpoch: 3, coordinatorEpoch: 5, timestampMs: T0 };

describe('transaction markers', () => {
  it.each([
    [true, VECTORS.C],
    [false, VECTORS.D],
  ])('are encoded as Kafka does (commit: %s)', (commit, vector) => {
    const marker = encodeTransactionMarker({ ...MARKER, commit });
    expect(marker.length).toBe(MARKER_BATCH_BYTES);
    stampBatch(marker, 0, 7, 0);
    expect(marker.toString('hex')).toBe(vector.toString('hex'));
  });

  it('are read back', () => {
    expect(readTransactionMarker(VECTORS.C)).toEqual({ outcome: 'commit', coordinatorEpoch: 5 });
    expect(readTransactionMarker(VECTORS.D)).toEqual({ outcome: 'abort', coordinatorEpoch: 5 });
  });

  it('are known as such when compaction has left their header alone', () => {
    expect(readTransactionMarker(VECTORS.E)).toEqual({ outcome: 'unknown', coordinatorEpoch: undefined });
  });

  it('are not taken for what they are not', () => {
    // The control record type 2, LEADER_CHANGE, and a record whose key is none.
    const other = altered(VECTORS.C, (batch) => {
      batch[VECTORS.C.indexOf('000000010c', 0, 'hex') + 3] = 2;
    });
    expect(readTransactionMarker(other)).toBeUndefined();
    expect(readTransactionMarker(batchOf(['a'], { control: true, transactional: true }))).toBeUndefined();
    expect(readTransactionMarker(VECTORS.A)).toBeUndefined();
  });

  it('have a time that is no record of any reader', () => {
    expect(newestRecordTimeOf(VECTORS.B, 0)).toBe(T0 + 7);
    expect(newestRecordTimeOf(VECTORS.C, 0)).toBe(-1);
  });
});
