/** What a start makes of compacted segments that are not as the last process meant to leave them (invariants 4, 13, 15). */
import { describe, expect, test } from 'vitest';
import { type Epoch, toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { consume, fillKeyed, optionsFor, problemsOf, SMALL } from './keyed.js';
import { EPOCH, LocalRig, partition, patch } from './support.js';

async function openLog(rig: LocalRig, epoch: Epoch = EPOCH): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), epoch, SMALL);
}

describe('appends behind a log that was compacted to its end', () => {
  test.each([true, false])('survive a kill (stopped in order before: %s)', async (inOrder) => {
    const rig = new LocalRig({ tailCacheBytes: 0 });
    const engine = await rig.open();
    const log = await engine.open(partition(), EPOCH, SMALL);
    await fillKeyed(log, 120);
    await log.roll();
    await log.compact(optionsFor(log));
    expect(log.cleanedOffset).toBe(log.endOffset);
    if (inOrder) await engine.close();

    const second = rig.crash();
    const again = await openLog(second, toEpoch(2));
    await fillKeyed(again, 3);
    const before = await consume(again);

    const third = second.crash();
    const last = await openLog(third, toEpoch(3));
    expect(await consume(last)).toEqual(before);
    expect([...third.messages('warn'), ...third.messages('error')]).toEqual([]);
    expect(await problemsOf(third.dataDir)).toEqual([]);
  });
});

describe('a compacted segment whose index had to be built anew', () => {
  test.each(['.index', '.timeindex'])(
    '(%s) is whole after a kill, whatever wrote the checkpoint since',
    async (suffix) => {
      const rig = new LocalRig({ tailCacheBytes: 0 });
      const engine = await rig.open();
      const log = await engine.open(partition(), EPOCH, SMALL);
      await fillKeyed(log, 120);
      await log.compact(optionsFor(log));
      const before = await consume(log);
      const lastCleaned = log.segments().findLast(({ nextOffset }) => nextOffset <= log.cleanedOffset)!.baseOffset;
      await engine.close();

      const second = rig.crash();
      patch(second.file(lastCleaned, suffix), (bytes) => bytes.fill(7));
      const again = await openLog(second, toEpoch(2));
      expect(await consume(again)).toEqual(before);
      await again.batchForTime(0);
      await again.trim(toOffset(1));

      const third = second.crash();
      const restarted = await openLog(third, toEpoch(3));
      expect((await consume(restarted, 1)).table).toEqual(before.table);
      expect(third.messages('error')).toEqual([]);
    },
  );
});
