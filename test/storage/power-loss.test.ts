/** Power cuts in the middle of appends, compactions and trims (invariants 1, 2, 4, 13, 15, 19). */
import { expect, test } from 'vitest';
import { encodeBatch } from '../../src/batch/builder.js';
import { type Offset, toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { randomFrom } from '../support/random.js';
import { consume, expectOneOfEachKey, fillKeyed, optionsFor, type Seen } from './keyed.js';
import { DiskRig, LOG_CONFIG, PowerCuts, type Remains } from './power-cuts.js';
import { BASE_TIME, EPOCH, partition } from './support.js';

const LONG = process.env.TEST_LONG !== undefined;
const MAX_STATES = LONG ? Number.POSITIVE_INFINITY : 3000;
const SEED = Number(process.env.TEST_SEED ?? 20_260_301);

/** What was promised when the power went. */
interface Promised {
  /** Everything below was flushed. */
  readonly durable: number;
  /** The log starts here at least, and at most there. */
  readonly trimmed: number;
  readonly trimming: number;
}

/** Every record that was ever handed to the log, by offset. */
type History = Seen['records'];

function tableOf(records: History): ReadonlyMap<string, string> {
  const table = new Map<string, string>();
  for (const { key, value } of records) {
    if (value === null) table.delete(key);
    else table.set(key, value);
  }
  return table;
}

/** A log's life in brief; resolves to all that was appended. */
async function live(rig: DiskRig, cuts: PowerCuts<Promised>): Promise<History> {
  const history: History[number][] = [];
  let promised: Promised = { durable: 0, trimmed: 0, trimming: 0 };
  cuts.watch(rig.disk, () => promised);
  const engine = await rig.open();
  const log = await engine.open(partition(), EPOCH, LOG_CONFIG);
  const fill = async (count: number): Promise<void> => {
    // One flush for each append: of two segments that were never synced, a cut may leave the second alone.
    for (const end = log.endOffset + count; log.endOffset < end; ) {
      const from = log.endOffset;
      await fillKeyed(log, 1);
      history.push(...(await consume(log, from)).records);
      promised = { ...promised, durable: log.durableOffset };
    }
  };
  const trim = async (before: Offset): Promise<void> => {
    promised = { ...promised, trimming: before };
    await log.trim(before);
    promised = { ...promised, trimmed: before };
  };
  await fill(45);
  await log.compact(optionsFor(log));
  await fill(20);
  await log.roll();
  await log.compact(optionsFor(log, { nowMs: BASE_TIME + 2000 }));
  await trim(toOffset(22));
  // What was replaced is removed.
  rig.clock.advance(1000);
  await expect.poll(async () => (await rig.filesOfLog()).filter((name) => name.endsWith('.deleted'))).toEqual([]);
  await fill(15);
  await log.compact(optionsFor(log, { nowMs: BASE_TIME + 4000, maxMapBytes: 1 }));
  await trim(toOffset(log.endOffset - 5));
  await engine.close();
  return history;
}

async function openLog(rig: DiskRig, epoch: number): Promise<PartitionLog> {
  return (await rig.open()).open(partition(), toEpoch(epoch), LOG_CONFIG);
}

async function expectKept(
  rig: DiskRig,
  log: PartitionLog,
  { facts, at }: Remains<Promised>,
  history: History,
): Promise<Seen> {
  const { startOffset: start, endOffset: end } = log;
  expect(end, at).toBeGreaterThanOrEqual(facts.durable);
  expect(start, at).toBeGreaterThanOrEqual(facts.trimmed);
  expect(start, at).toBeLessThanOrEqual(facts.trimming);
  const seen = await consume(log);
  const appended = history.filter(({ offset }) => offset >= start && offset < end);
  expect(seen.table, at).toEqual(tableOf(appended));
  const byOffset = new Map(history.map((record) => [record.offset, record]));
  for (const record of seen.records) expect(record, at).toEqual(byOffset.get(record.offset));
  expectOneOfEachKey(seen, log.cleanedOffset);
  expect(rig.messages('error'), at).toEqual([]);
  const names = await rig.filesOfLog();
  expect(
    names.filter((name) => /\.(cleaned|swap|deleted|tmp)$/.test(name)),
    at,
  ).toEqual([]);
  return seen;
}

/** Started, appended to, cut again as hard as can be, and started again. */
async function expectRecovers(remains: Remains<Promised>, history: History): Promise<void> {
  const first = new DiskRig(remains.image);
  const log = await openLog(first, 2);
  const seen = await expectKept(first, log, remains, history);
  const { startOffset, cleanedOffset, endOffset } = log;

  const second = first.cut();
  const again = await openLog(second, 3);
  expect(await consume(again), `${remains.at}, and again`).toEqual(seen);
  expect(again, `${remains.at}, and again`).toMatchObject({ startOffset, cleanedOffset, endOffset });
  const added = { offset: endOffset, key: 'added', value: 'later' };
  const record = { timestampMs: BASE_TIME, key: Buffer.from(added.key), value: Buffer.from(added.value) };
  await again.append([encodeBatch([record], { baseOffset: endOffset, leaderEpoch: 3 })], endOffset);
  await again.flush(again.endOffset);

  const third = second.cut();
  const last = await openLog(third, 4);
  expect((await consume(last)).records, `${remains.at}, and a third time`).toEqual([...seen.records, added]);
  expect([...second.messages('error'), ...third.messages('error')], remains.at).toEqual([]);
}

test(`whatever of the un-synced changes a power cut takes, nothing promised is lost (seed ${SEED})`, async () => {
  const random = randomFrom(SEED);
  const cuts = new PowerCuts<Promised>(random, LONG ? 20 : 2);
  const history = await live(new DiskRig(), cuts);
  const { remains } = cuts;
  const share = MAX_STATES / remains.length;
  const chosen = remains.filter(() => random() < share);
  expect(chosen.length).toBeGreaterThan(1000);
  for (const one of chosen) await expectRecovers(one, history);
}, 600_000);
