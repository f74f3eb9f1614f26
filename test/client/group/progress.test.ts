import { describe, expect, test } from 'vitest';
import { Progress } from '../../../src/client/group/progress.js';
import { fc } from '../../support/properties.js';

describe('what may be committed', () => {
  test('is the position while everything handed out is finished', () => {
    const progress = new Progress(10);
    expect(progress.committable).toBe(10);
    progress.handOut(10, 11);
    progress.finish(10, 11);
    expect(progress.committable).toBe(11);
    progress.handOut(11, 50);
    progress.finish(11, 50);
    expect([progress.committable, progress.position]).toEqual([50, 50]);
  });

  test('stops at the first record that is not finished, and moves over what was finished behind it once that is', () => {
    const progress = new Progress(0);
    for (let offset = 0; offset < 5; offset++) progress.handOut(offset, offset + 1);
    for (const offset of [1, 2, 4]) progress.finish(offset, offset + 1);
    expect(progress.committable).toBe(0);
    progress.finish(0, 1);
    expect(progress.committable).toBe(3);
    progress.finish(3, 4);
    expect(progress.committable).toBe(5);
  });

  test('moves over holes that compaction has left, within a batch, at its end and between batches', () => {
    const progress = new Progress(0);
    progress.handOut(3, 4);
    progress.handOut(7, 8);
    expect(progress.committable).toBe(3);
    progress.finish(3, 4);
    expect(progress.committable).toBe(7);
    progress.skipTo(20);
    progress.finish(7, 8);
    expect([progress.committable, progress.position]).toEqual([20, 20]);
    progress.skipTo(5);
    expect(progress.position).toBe(20);
  });

  test('counts a record of a batch as finished with the record, the batch with the batch', () => {
    const progress = new Progress(0);
    progress.handOut(0, 10);
    progress.finish(4, 5);
    expect(progress.committable).toBe(0);
    progress.finish(0, 10);
    expect([progress.committable, progress.hasUnfinished]).toEqual([10, false]);
  });

  test('ignores what is finished twice or was never handed out', () => {
    const progress = new Progress(0);
    progress.handOut(0, 5);
    progress.finish(0, 2);
    progress.finish(0, 2);
    progress.finish(7, 9);
    expect(progress.committable).toBe(2);
    progress.finishAll();
    expect(progress.committable).toBe(5);
  });

  test('comes with the leader epoch of the last record below it', () => {
    const progress = new Progress(0);
    expect(progress.leaderEpoch()).toBe(-1);
    progress.noteLeaderEpoch(0, 3);
    progress.handOut(0, 10);
    expect(progress.leaderEpoch()).toBe(-1);
    progress.noteLeaderEpoch(10, 4);
    progress.handOut(10, 20);
    progress.finish(0, 10);
    expect(progress.leaderEpoch()).toBe(3);
    progress.finish(10, 11);
    expect(progress.leaderEpoch()).toBe(4);
  });
});

test('in any order of handing out and finishing, the committable offset is that of a list of all records', () => {
  const step = fc.record({ gap: fc.nat(2), length: fc.integer({ min: 1, max: 4 }), finish: fc.array(fc.nat(60)) });
  fc.assert(
    fc.property(fc.nat(5), fc.array(step, { maxLength: 20 }), (start, steps) => {
      const progress = new Progress(start);
      const unfinished = new Set<number>();
      let position = start;
      for (const { gap, length, finish } of steps) {
        const from = position + gap;
        progress.handOut(from, from + length);
        for (let offset = from; offset < from + length; offset++) unfinished.add(offset);
        position = from + length;
        for (const offset of finish) {
          progress.finish(offset, offset + 1);
          unfinished.delete(offset);
        }
        expect(progress.position).toBe(position);
        expect(progress.committable).toBe(unfinished.size === 0 ? position : Math.min(...unfinished));
        expect(progress.hasUnfinished).toBe(unfinished.size > 0);
      }
    }),
    { numRuns: 300 },
  );
});
