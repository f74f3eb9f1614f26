import { beforeEach, describe, expect, test } from 'vitest';
import { ProducerIds } from '../../src/broker/producer-ids.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import type { MetadataStore } from '../../src/storage/engine.js';
import { openMemoryEngine } from '../../src/storage/memory/engine.js';
import { LocalRig } from '../storage/support.js';
import { rejection } from '../support/rejection.js';
import { WatchedMetadata } from './support.js';

const KEY = 'broker/producer-ids';

async function take(ids: ProducerIds, count: number): Promise<number[]> {
  return await Promise.all(Array.from({ length: count }, () => ids.allocate()));
}

const STORES: readonly (readonly [string, () => Promise<MetadataStore>])[] = [
  ['memory', async () => openMemoryEngine({ clock: systemClock }).metadata],
  ['local', async () => (await new LocalRig().open()).metadata],
];

describe.each(STORES)('producer ids from the %s store', (_name, open) => {
  let metadata: WatchedMetadata;
  let writes: string[];

  beforeEach(async () => {
    metadata = new WatchedMetadata(await open());
    writes = [];
    metadata.before = (_key, value) => void writes.push(value ?? '');
  });

  test('are all different, also for thousands who ask at once', async () => {
    const ids = await take(new ProducerIds(metadata), 2500);
    expect(new Set(ids).size).toBe(2500);
    expect(Math.min(...ids)).toBe(0);
  });

  test('cost one durable write for a thousand, shared by those who wait', async () => {
    const ids = new ProducerIds(metadata);
    await take(ids, 1000);
    expect(writes).toEqual(['1000']);
    await take(ids, 1);
    expect(writes).toEqual(['1000', '2000']);
  });

  test('are not handed out before their block is durable', async () => {
    let release = (): void => undefined;
    metadata.before = () => new Promise((resolve) => (release = resolve));
    let given = false;
    const asked = new ProducerIds(metadata).allocate().then(() => (given = true));
    await new Promise(setImmediate);
    expect(given).toBe(false);
    release();
    await asked;
    expect((await metadata.get(KEY))?.value).toBe('1000');
  });

  test('of two brokers on one store never meet', async () => {
    const brokers = [new ProducerIds(metadata), new ProducerIds(metadata)];
    const taken = await Promise.all(brokers.map((ids) => take(ids, 1500)));
    expect(new Set(taken.flat()).size).toBe(3000);
  });

  test('can be had again after the store could not write', async () => {
    const ids = new ProducerIds(metadata);
    metadata.before = () => {
      throw new LogError('STORAGE_FULL', 'full');
    };
    await rejection(ids.allocate(), 'STORAGE_FULL');
    metadata.before = () => undefined;
    expect(await ids.allocate()).toBe(0);
  });
});

test('producer ids do not come again after the death of the process', async () => {
  const rig = new LocalRig();
  const before = await take(new ProducerIds((await rig.open()).metadata), 3);
  const after = await take(new ProducerIds((await rig.crash().open()).metadata), 3);
  expect(before).toEqual([0, 1, 2]);
  expect(after).toEqual([1000, 1001, 1002]);
});

test('a counter that is no number is reported, not begun anew', async () => {
  const { metadata } = openMemoryEngine({ clock: systemClock });
  await metadata.compareAndSet(KEY, 'x', 0);
  await rejection(new ProducerIds(metadata).allocate(), 'CORRUPT_LOG');
});
