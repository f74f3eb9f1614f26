/** What becomes of the remains of a power cut when there is more than one start, or when their indexes are gone as well. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { encodeBatch } from '../../../src/batch/builder.js';
import { type Offset, toOffset } from '../../../src/core/types.js';
import type { PartitionLog } from '../../../src/storage/engine.js';
import type { DiskImage } from '../../support/power-loss-disk.js';
import { DiskRig, PowerCuts, type Remains, type StateSet } from '../power-cuts.js';
import { BASE_TIME } from '../support.js';
import { expectKept, type Found, type Kept } from './kept.js';
import type { LifeRecord, Promised } from './life.js';

/** Enough for the work that a start leaves to do behind the scenes. */
const TURNS_AFTER_START = 30;
const INDEX = /index(\.swap)?$/;

/** The remains that are looked at, what a first start made of them, and the means to try more. */
export interface Trial {
  readonly remains: Remains<Promised>;
  readonly history: readonly LifeRecord[];
  readonly found: Found;
  /** In [0, 1). */
  readonly random: () => number;
}

function expectSame(found: Found, expected: Found, at: string): void {
  if (isDeepStrictEqual(found, expected)) return;
  throw new Error(`${at}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
}

function startAgain({ remains, history }: Trial, image: DiskImage, what: string): Promise<Kept> {
  return expectKept(new DiskRig(image), { ...remains, image, at: `${remains.at}, ${what}` }, history);
}

/** Invariant 15: cut again as hard as can be, a second start finds the same; what it appends and flushes, a third finds. */
export async function expectSettled(trial: Trial, rig: DiskRig): Promise<void> {
  const { remains, history, found } = trial;
  const second = rig.cut();
  const at = `${remains.at}, started again`;
  const again = await expectKept(second, { ...remains, at }, history, 101);
  expectSame(again.found, found, at);
  const added = { offset: again.log.endOffset, key: 'added', value: 'later' };
  await appendFlushed(again.log, added);
  const written = added.offset + 1;
  const facts = { ...remains.facts, written, attempted: [] };
  const longer: LifeRecord[] = [...history.slice(0, added.offset)];
  // What was under way when the power went may have become part of the log.
  for (const record of remains.facts.attempted) if (record.offset < added.offset) longer[record.offset] = record;
  longer[added.offset] = added;
  const third = await expectKept(second.cut(), { ...remains, facts, at: `${at} and appended to` }, longer, 102);
  const records = [...found.records, added];
  expectSame(third.found, { ...found, endOffset: written, records }, `${at} and appended to`);
}

async function appendFlushed(log: PartitionLog, { offset, key, value }: LifeRecord & { value: string }): Promise<void> {
  const record = { timestampMs: BASE_TIME, key: Buffer.from(key), value: Buffer.from(value) };
  await log.append([encodeBatch([record], { baseOffset: offset, leaderEpoch: 1 })], toOffset(offset));
  await log.flush(log.endOffset);
}

/**
 * Invariant 15: wherever the first start is cut short, the next one finds the same.
 * @returns how many states were looked at
 */
export async function expectSameWhenCutShort(trial: Trial, states: StateSet, most: number): Promise<number> {
  const { remains, history, found, random } = trial;
  const cuts = new PowerCuts<Promised>({ random, randomCuts: 1 }, states);
  const rig = new DiskRig(remains.image);
  cuts.watch(rig.disk, () => remains.facts);
  await expectKept(rig, remains, history);
  for (let turn = 0; turn < TURNS_AFTER_START; turn++) await nextTurn();
  const share = most / cuts.remains.length;
  const chosen = cuts.remains.filter(() => random() < share);
  for (const { image, at } of chosen) {
    const again = await startAgain(trial, image, `cut again at ${at}`);
    expectSame(again.found, found, `${remains.at}, cut again at ${at}`);
  }
  return chosen.length;
}

/** Invariant 19: without its indexes, or with wrong ones, a log gives the same answers. */
export async function expectIndexesDerived(trial: Trial, log: PartitionLog): Promise<void> {
  const { remains, found, random } = trial;
  const image = new Map<string, Buffer>();
  for (const [path, contents] of remains.image) {
    const left = INDEX.test(path) ? spoiled(contents, random) : contents;
    if (left) image.set(path, left);
  }
  const again = await startAgain(trial, image, 'its indexes spoiled');
  expectSame(again.found, found, `${remains.at}, its indexes spoiled`);
  if (found.corrupt.length > 0) return;
  const times = [await timesOf(log), await timesOf(again.log)];
  if (isDeepStrictEqual(times[0], times[1])) return;
  throw new Error(`${remains.at}: times ${JSON.stringify(times[1])} without indexes, not ${JSON.stringify(times[0])}`);
}

/** Nothing, half of it, zeros, or noise. */
function spoiled(contents: Buffer, random: () => number): Buffer | undefined {
  const ways = [
    () => undefined,
    () => contents.subarray(0, contents.length >> 1),
    () => Buffer.alloc(contents.length),
    () => Buffer.from(contents.map(() => random() * 256)),
  ];
  return ways[Math.floor(random() * ways.length)]!();
}

async function timesOf(log: PartitionLog): Promise<readonly (Offset | undefined)[]> {
  const { startOffset, endOffset } = log;
  const asked = [startOffset, (startOffset + endOffset) >> 1, endOffset - 1, endOffset];
  const found = await Promise.all(asked.map((offset) => log.batchForTime(BASE_TIME + offset)));
  return [...found, await log.batchForMaxTimestamp(endOffset)];
}
