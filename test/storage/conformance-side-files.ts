/** What every storage engine must do with files beside a log, and what it tells of producers. */
import { expect, test } from 'vitest';
import { toEpoch, toOffset } from '../../src/core/types.js';
import { MAX_SIDE_FILE_BYTES } from '../../src/storage/batches.js';
import { byProducer, commit, DAY, keyed } from './compaction/support.js';
import type { Subject } from './conformance-compaction.js';
import { BASE_TIME, CONFIG, fill, partition, reasonOf } from './support.js';

export function describeSideFiles({ log, engine, reopen }: Subject): void {
  const contents = async (offset: number): Promise<string | undefined> =>
    (await log().sideFiles.read('snapshot', toOffset(offset)))?.toString();
  const write = (offset: number, text: string): Promise<void> =>
    log().sideFiles.write('snapshot', toOffset(offset), Buffer.from(text));

  /** `hasProducers` of each segment. */
  const producers = (): readonly boolean[] =>
    log()
      .segments()
      .map(({ hasProducers }) => hasProducers);

  test('a side file is read as it was written, and the one before is gone', async () => {
    expect([log().sideFiles.offsets('snapshot'), await contents(0)]).toEqual([[], undefined]);
    await write(0, 'one');
    expect(await contents(0)).toBe('one');
    await write(0, 'another');
    await write(0, '');
    expect([log().sideFiles.offsets('snapshot'), await contents(0)]).toEqual([[0], '']);
  });

  test('side files are listed in the order of their offsets, each kind by itself', async () => {
    await fill(log(), 12);
    for (const offset of [10, 2, 12, 0]) await write(offset, `at ${offset}`);
    await log().sideFiles.write('txnindex', toOffset(2), Buffer.from('index'));
    expect(log().sideFiles.offsets('snapshot')).toEqual([0, 2, 10, 12]);
    expect(log().sideFiles.offsets('txnindex')).toEqual([2]);
    await log().sideFiles.remove('snapshot', toOffset(2));
    await log().sideFiles.remove('snapshot', toOffset(3));
    expect(log().sideFiles.offsets('snapshot')).toEqual([0, 10, 12]);
    expect([await contents(2), await contents(10)]).toEqual([undefined, 'at 10']);
    expect((await log().sideFiles.read('txnindex', toOffset(2)))?.toString()).toBe('index');
  });

  test('what is asked for at once is carried out in call order', async () => {
    const { sideFiles } = log();
    const results = [write(0, 'one'), write(0, 'two'), sideFiles.remove('snapshot', toOffset(0)), write(0, 'three')];
    const between = contents(0);
    await Promise.all([...results, write(0, 'four')]);
    expect([await between, await contents(0)]).toEqual(['three', 'four']);
  });

  test('what was written is not what the caller makes of its memory later, nor what a reader makes of it', async () => {
    const memory = Buffer.from('before');
    await log().sideFiles.write('snapshot', toOffset(0), memory);
    memory.fill('x');
    (await log().sideFiles.read('snapshot', toOffset(0)))!.fill('y');
    expect(await contents(0)).toBe('before');
  });

  test('a side file that is too large is refused', async () => {
    await write(0, 'small');
    const huge = new Uint8Array(MAX_SIDE_FILE_BYTES + 1);
    expect(await reasonOf(log().sideFiles.write('snapshot', toOffset(0), huge))).toBe('RESOURCE_LIMIT');
    expect(await contents(0)).toBe('small');
  });

  test('side files outlive trims, rolls and compactions', async () => {
    for (const value of ['1', '2']) {
      await log().append([keyed(log().endOffset, [`a=${value}`])], log().endOffset);
      await write(log().endOffset, `up to ${log().endOffset}`);
      await log().roll();
    }
    await compact();
    await log().trim(toOffset(2));
    expect(log().sideFiles.offsets('snapshot')).toEqual([1, 2]);
    expect([await contents(1), await contents(2)]).toEqual(['up to 1', 'up to 2']);
  });

  test('side files are found again when the log is opened again, and when the engine is', async () => {
    await fill(log(), 3);
    await write(3, 'state');
    await log().sideFiles.write('txnindex', toOffset(0), Buffer.from('index'));
    const newer = await engine().open(partition(), toEpoch(2), CONFIG);
    expect(newer.sideFiles.offsets('snapshot')).toEqual([3]);
    await newer.close();
    const again = await engine().open(partition(), toEpoch(2), CONFIG);
    expect((await again.sideFiles.read('snapshot', toOffset(3)))?.toString()).toBe('state');
    if (!(await reopen())) return;
    expect([log().sideFiles.offsets('snapshot'), await contents(3)]).toEqual([[3], 'state']);
    expect(log().sideFiles.offsets('txnindex')).toEqual([0]);
  });

  test('side files of a removed partition are gone', async () => {
    await fill(log(), 1);
    await write(1, 'state');
    const { sideFiles } = log();
    await engine().remove(partition());
    expect(await reasonOf(sideFiles.read('snapshot', toOffset(1)))).toBe('CLOSED');
    const anew = await engine().open(partition(), toEpoch(1), CONFIG);
    expect(anew.sideFiles.offsets('snapshot')).toEqual([]);
    expect(await anew.sideFiles.read('snapshot', toOffset(1))).toBeUndefined();
  });

  test('side files of a log that never held anything do not keep it', async () => {
    const other = await engine().open(partition(3), toEpoch(1), CONFIG);
    await other.sideFiles.write('snapshot', toOffset(0), Buffer.from('nothing'));
    await other.close();
    await engine().removeUnknown(({ topicId }) => topicId === partition().topicId);
    const anew = await engine().open(partition(3), toEpoch(1), CONFIG);
    expect(anew.sideFiles.offsets('snapshot')).toEqual([]);
  });

  test('an older epoch may read side files, and neither write nor remove them', async () => {
    await write(0, 'mine');
    const newer = await engine().open(partition(), toEpoch(2), CONFIG);
    expect(await reasonOf(write(0, 'late'))).toBe('FENCED_EPOCH');
    expect(await reasonOf(log().sideFiles.remove('snapshot', toOffset(0)))).toBe('FENCED_EPOCH');
    expect(await contents(0)).toBe('mine');
    await newer.sideFiles.write('snapshot', toOffset(0), Buffer.from('theirs'));
    expect(await contents(0)).toBe('theirs');
  });

  test('side files of a closed log take no calls', async () => {
    await log().close();
    const { sideFiles } = log();
    expect(await reasonOf(write(0, 'late'))).toBe('CLOSED');
    expect(await reasonOf(sideFiles.read('snapshot', toOffset(0)))).toBe('CLOSED');
    expect(await reasonOf(sideFiles.remove('snapshot', toOffset(0)))).toBe('CLOSED');
  });

  test('a segment says whether any of its batches names a producer', async () => {
    expect(producers()).toEqual([false]);
    await log().append([keyed(0, ['a=1'])], toOffset(0));
    expect(producers()).toEqual([false]);
    await log().append([keyed(1, ['a=2'], byProducer(0)), keyed(2, ['a=3'])], toOffset(1));
    expect(producers()).toEqual([true]);
    await log().roll();
    await log().append([keyed(3, ['b=1'])], toOffset(3));
    await log().roll();
    await log().append([commit(4, 9)], toOffset(4));
    expect(producers()).toEqual([true, false, true]);
    await log().trim(toOffset(3));
    expect(producers()).toEqual([false, true]);
    await log().trim(toOffset(4));
    expect(producers()).toEqual([true]);
    if (!(await reopen())) return;
    expect(producers()).toEqual([true]);
    await log().append([keyed(5, ['c=1'])], toOffset(5));
    expect(producers()).toEqual([true]);
  });

  test('a segment that was clean when the engine stopped names the producers that wrote since', async () => {
    await log().append([keyed(0, ['a=1'])], toOffset(0));
    if (!(await reopen())) return;
    await log().append([keyed(1, ['a=2'], byProducer(4))], toOffset(1));
    expect(producers()).toEqual([true]);
    if (!(await reopen())) return;
    expect(producers()).toEqual([true]);
  });

  test('compaction leaves out the producers of whom it leaves nothing', async () => {
    await log().append([keyed(0, ['a=1'], byProducer(4)), keyed(1, ['a=2'])], toOffset(0));
    await log().roll();
    await log().append([keyed(2, ['b=1'], byProducer(5))], toOffset(2));
    expect(producers()).toEqual([true, true]);
    await compact();
    expect(producers()).toEqual([true, true]);
    await log().roll();
    await log().append([keyed(3, ['c=1'])], toOffset(3));
    // Long after: nobody has to remember producer 4, and what it wrote was superseded.
    await compact(BASE_TIME + 100 * DAY);
    await reopen();
    expect(producers()[0]).toBe(true);
    await log().roll();
    await log().append([keyed(4, ['b=2'])], toOffset(4));
    await log().roll();
    await compact(BASE_TIME + 100 * DAY);
    expect(producers()).toEqual(producers().map(() => false));
  });

  async function compact(nowMs: number = BASE_TIME): Promise<void> {
    await log().compact({
      upTo: log().endOffset,
      nowMs,
      deleteRetentionMs: DAY,
      producerExpirationMs: DAY,
      maxMapBytes: 1 << 20,
    });
  }
}
