import { describe, expect, it } from 'vitest';
import { BYTES_PER_SLOT, KeyMap } from '../../../src/storage/compaction/key-map.js';
import { fc } from '../../support/properties.js';

const PLENTY = 1 << 24;

function put(map: KeyMap, key: Uint8Array, offset: number): boolean {
  return map.put(key, 0, key.length, offset);
}

function get(map: KeyMap, key: Uint8Array): number {
  return map.get(key, 0, key.length);
}

/** Mean number of slots that a search looks at, over all keys. */
function meanProbes(map: KeyMap, keys: readonly Buffer[]): number {
  return keys.reduce((sum, key) => sum + map.probesFor(key, 0, key.length), 0) / keys.length;
}

function counter(n: number, bytes: number): Buffer {
  const key = Buffer.alloc(bytes);
  key.writeUInt32BE(n, bytes - 4);
  return key;
}

describe('KeyMap', () => {
  it('does what a Map does, whatever the keys and however they are repeated', () => {
    const key = fc.oneof(fc.uint8Array({ maxLength: 3 }), fc.uint8Array({ maxLength: 40 }));
    const puts = fc.array(key, { maxLength: 300 });
    fc.assert(
      fc.property(puts, puts, fc.nat(), (keys, others, firstOffset) => {
        const map = new KeyMap(PLENTY, keys.length);
        const model = new Map<string, number>();
        for (const [i, one] of keys.entries()) {
          expect(put(map, one, firstOffset + i)).toBe(true);
          model.set(Buffer.from(one).toString('hex'), firstOffset + i);
        }
        expect(map.size).toBe(model.size);
        for (const one of [...keys, ...others]) {
          expect(get(map, one)).toBe(model.get(Buffer.from(one).toString('hex')) ?? -1);
        }
      }),
    );
  });

  it('looks at the given part of the buffer only', () => {
    const map = new KeyMap(PLENTY, 10);
    const text = Buffer.from('..key-that-is-rather-long..short..');
    map.put(text, 2, 23, 1);
    map.put(text, 27, 5, 2);
    expect(get(map, Buffer.from('key-that-is-rather-long'))).toBe(1);
    expect(get(map, Buffer.from('short'))).toBe(2);
    expect(get(map, text)).toBe(-1);
  });

  it('tells keys apart that differ in length alone, zeros included', () => {
    const map = new KeyMap(PLENTY, 100);
    for (let length = 0; length <= 20; length++) put(map, Buffer.alloc(length), length);
    for (let length = 0; length <= 20; length++) expect(get(map, Buffer.alloc(length))).toBe(length);
    expect(map.size).toBe(21);
  });

  it('holds every offset there can be', () => {
    const map = new KeyMap(PLENTY, 10);
    for (const offset of [0, 2 ** 32 - 2, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER - 1]) {
      put(map, Buffer.from('k'), offset);
      expect(get(map, Buffer.from('k'))).toBe(offset);
    }
  });

  it('refuses new keys when it is full, and still takes new offsets of those it has', () => {
    const map = new KeyMap(BYTES_PER_SLOT * 100, 1e6);
    let taken = 0;
    while (put(map, counter(taken, 8), taken)) taken++;
    expect([taken, map.size, map.isFull]).toEqual([90, 90, true]);
    expect(get(map, counter(90, 8))).toBe(-1);
    expect(put(map, counter(7, 8), 1000)).toBe(true);
    expect(get(map, counter(7, 8))).toBe(1000);
    expect(map.size).toBe(90);
  });

  it('takes no more memory than granted, and no more than the keys need', () => {
    expect(new KeyMap(1 << 20, 1e9).byteLength).toBeLessThanOrEqual(1 << 20);
    expect(new KeyMap(1 << 20, 1e9).byteLength).toBeGreaterThan((1 << 20) - BYTES_PER_SLOT);
    expect(new KeyMap(1 << 30, 900).byteLength).toBeLessThanOrEqual(1001 * BYTES_PER_SLOT);
    const exact = new KeyMap(1 << 30, 900);
    for (let i = 0; i < 900; i++) expect(put(exact, counter(i, 4), i)).toBe(true);
  });

  it('takes at least one key, however little memory is granted', () => {
    const map = new KeyMap(0, 0);
    expect(map.isFull).toBe(false);
    expect(put(map, Buffer.from('k'), 1)).toBe(true);
  });

  // Linear probing at a load of 0.9 looks at 5.5 slots on average when the slots are well mixed.
  const patterns: readonly (readonly [string, (n: number) => Buffer])[] = [
    ['text that counts', (n) => Buffer.from(`user-${n}`)],
    ['text that counts, padded', (n) => Buffer.from(String(n).padStart(15, '0'))],
    ['4-byte counters', (n) => counter(n, 4)],
    ['8-byte counters', (n) => counter(n, 8)],
    ['counters in steps of 65,536', (n) => counter(n * 65_536, 8)],
    ['text longer than a slot', (n) => Buffer.from(`the-quite-long-user-${n}`)],
  ];
  it.each(patterns)('finds keys as fast as random ones: %s', (_what, keyOf) => {
    const keys = Array.from({ length: 60_000 }, (_, n) => keyOf(n));
    const map = new KeyMap(PLENTY, keys.length);
    for (const [i, key] of keys.entries()) put(map, key, i);
    expect(map.size).toBe(keys.length);
    expect(meanProbes(map, keys)).toBeLessThan(8);
  });

  it('orders the slots by the seed', () => {
    const probes = (seed: number): number[] => {
      const map = new KeyMap(BYTES_PER_SLOT * 200, 1e6, seed);
      const keys = Array.from({ length: 180 }, (_, n) => counter(n, 4));
      for (const [i, key] of keys.entries()) put(map, key, i);
      return keys.map((key) => map.probesFor(key, 0, 4));
    };
    expect(probes(1)).toEqual(probes(1));
    expect(probes(1)).not.toEqual(probes(2));
  });
});
