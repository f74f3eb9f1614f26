/** What every storage engine must do with side files, and tell of producers. */
import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog, StorageEngine } from '../../src/storage/engine.js';
import { batchAt, CONFIG, EPOCH, fill, partition, reasonOf } from './support.js';

interface SideFileTools {
  engine(): StorageEngine;
  log(): PartitionLog;
  /** Undefined when the engine keeps nothing. */
  reopen(): (() => Promise<StorageEngine>) | undefined;
}

const at = toOffset(7);

export function describeSideFiles({ engine, log, reopen }: SideFileTools): void {
  test('are read as they were written, each kind and offset by itself, and replaced whole', async () => {
    const { sideFiles } = log();
    expect(sideFiles.offsets('snapshot')).toEqual([]);
    expect(await sideFiles.read('snapshot', at)).toBeUndefined();
    const contents = Buffer.from('first');
    await sideFiles.write('snapshot', at, contents);
    contents.fill(0);
    await sideFiles.write('snapshot', toOffset(3), Buffer.alloc(0));
    await sideFiles.write('txnindex', at, Buffer.from('index'));
    expect(sideFiles.offsets('snapshot')).toEqual([3, 7]);
    expect(sideFiles.offsets('txnindex')).toEqual([7]);
    expect((await sideFiles.read('snapshot', at))?.toString()).toBe('first');
    expect(await sideFiles.read('snapshot', toOffset(3))).toHaveLength(0);
    await sideFiles.write('snapshot', at, Buffer.from('second'));
    expect((await sideFiles.read('snapshot', at))?.toString()).toBe('second');
    expect((await sideFiles.read('txnindex', at))?.toString()).toBe('index');
  });

  test('are gone when they are removed, which may be done twice', async () => {
    const { sideFiles } = log();
    await sideFiles.write('txnindex', at, Buffer.from('index'));
    await sideFiles.remove('txnindex', at);
    await sideFiles.remove('txnindex', at);
    expect(sideFiles.offsets('txnindex')).toEqual([]);
    expect(await sideFiles.read('txnindex', at)).toBeUndefined();
  });

  test('are there when the log is opened again, through rolls, trims and compactions', async (context) => {
    const open = reopen();
    if (open === undefined) return context.skip();
    await fill(log(), 3);
    await log().roll();
    await fill(log(), 3);
    await log().sideFiles.write('snapshot', toOffset(6), Buffer.from('six'));
    await log().sideFiles.write('snapshot', toOffset(3), Buffer.from('three'));
    await log().trim(toOffset(4));
    const opened = await (await open()).open(partition(), toEpoch(EPOCH + 1), CONFIG);
    expect(opened.sideFiles.offsets('snapshot')).toEqual([3, 6]);
    expect((await opened.sideFiles.read('snapshot', toOffset(6)))?.toString()).toBe('six');
  });

  test('of offsets beyond the end are gone when the log is opened again', async (context) => {
    const open = reopen();
    if (open === undefined) return context.skip();
    await fill(log(), 2);
    for (const offset of [2, 3]) await log().sideFiles.write('snapshot', toOffset(offset), Buffer.from('x'));
    const opened = await (await open()).open(partition(), toEpoch(EPOCH + 1), CONFIG);
    expect(opened.sideFiles.offsets('snapshot')).toEqual([2]);
  });

  test('go with their partition', async () => {
    await log().sideFiles.write('snapshot', toOffset(0), Buffer.from('x'));
    await engine().remove(partition());
    const anew = await engine().open(partition(), EPOCH, CONFIG);
    expect(anew.sideFiles.offsets('snapshot')).toEqual([]);
    expect(await anew.sideFiles.read('snapshot', toOffset(0))).toBeUndefined();
  });

  test('are written by the newest epoch only, and by nobody once the log is closed', async () => {
    const { sideFiles } = log();
    const newer = await engine().open(partition(), toEpoch(EPOCH + 1), CONFIG);
    expect(await reasonOf(sideFiles.write('snapshot', at, Buffer.from('x')))).toBe('FENCED_EPOCH');
    expect(await reasonOf(sideFiles.remove('snapshot', at))).toBe('FENCED_EPOCH');
    await newer.sideFiles.write('snapshot', at, Buffer.from('y'));
    await newer.close();
    expect(await reasonOf(newer.sideFiles.write('snapshot', at, Buffer.from('z')))).toBe('CLOSED');
    expect(await reasonOf(newer.sideFiles.read('snapshot', at))).toBe('CLOSED');
  });

  test('a segment tells whether any of its batches names a producer, also when it was opened again', async (context) => {
    await fill(log(), 2);
    await log().roll();
    await log().append([batchAt(2), batchAt(3, { producerId: 5 })], toOffset(2));
    await log().roll();
    await fill(log(), 1);
    const told = (of: PartitionLog): boolean[] => of.segments().map(({ hasProducers }) => hasProducers);
    expect(told(log())).toEqual([false, true, false]);
    const open = reopen();
    if (open === undefined) return context.skip();
    const opened = await (await open()).open(partition(), toEpoch(EPOCH + 1), CONFIG);
    expect(told(opened).slice(0, 3)).toEqual([false, true, false]);
  });
}
