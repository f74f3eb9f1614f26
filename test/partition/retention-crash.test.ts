/** A retention pass that is stopped at any of its changes to the disk, by a kill or a power cut. */
import { expect, test } from 'vitest';
import { toEpoch } from '../../src/core/types.js';
import { Partition } from '../../src/partition/partition.js';
import type { PartitionConfig } from '../../src/partition/partition-config.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { consume, fillKeyed, type Seen } from '../storage/keyed.js';
import { DiskRig, LOG_CONFIG, PowerCuts, type Remains } from '../storage/power-cuts.js';
import { EPOCH, partition as partitionId } from '../storage/support.js';
import { inForm, Programme } from '../support/programme.js';
import { CONFIG, newSharedProducers } from './support.js';

const MAX_STATES = inForm({ short: 600, long: Number.POSITIVE_INFINITY });
const DAY = 86_400_000;
const RETAINING: PartitionConfig = { ...CONFIG, ...LOG_CONFIG, retentionRecords: 20, retentionMs: DAY };

/** What was promised when the process stopped. */
interface Promised {
  /** Everything below was acknowledged. */
  readonly durable: number;
  /** The log starts here at least, and at most there: where the pass under way is to move it. */
  readonly start: number;
  readonly plannedStart: number;
}

type History = Seen['records'];

/** Appends and retention passes in turn, the last of them over everything; resolves to all that was appended. */
async function live(rig: DiskRig, cuts: PowerCuts<Promised>): Promise<History> {
  const history: History[number][] = [];
  let promised: Promised = { durable: 0, start: 0, plannedStart: 0 };
  cuts.watch(rig.disk, () => promised);
  const engine = await rig.open();
  const log = await engine.open(partitionId(), EPOCH, LOG_CONFIG);
  const partition = await Partition.open({
    topic: 't',
    log,
    config: RETAINING,
    clock: rig.clock,
    logger: rig.logger,
    producers: newSharedProducers(),
  });
  const fill = async (count: number): Promise<void> => {
    for (const end = log.endOffset + count; log.endOffset < end; ) {
      const from = log.endOffset;
      await fillKeyed(log, 1);
      history.push(...(await consume(log, from)).records);
      promised = { ...promised, durable: log.durableOffset };
    }
  };
  const retain = async (): Promise<void> => {
    const plan = partition.lifecycle.planRetention();
    expect(plan).toBeDefined();
    promised = { ...promised, plannedStart: plan!.rollFirst ? log.endOffset : plan!.newStartOffset };
    const result = await partition.lifecycle.applyRetention(plan!);
    expect(result?.newStartOffset).toBe(promised.plannedStart);
    promised = { ...promised, start: log.startOffset };
  };
  await fill(70);
  await retain();
  await fill(30);
  await retain();
  rig.clock.advance(1000);
  await expect.poll(async () => (await rig.filesOfLog()).filter((name) => name.endsWith('.deleted'))).toEqual([]);
  rig.clock.advance(2 * DAY);
  await retain();
  expect(log.startOffset).toBe(log.endOffset);
  await fill(10);
  await engine.close();
  return history;
}

async function openLog(rig: DiskRig, epoch: number): Promise<PartitionLog> {
  return (await rig.open()).open(partitionId(), toEpoch(epoch), LOG_CONFIG);
}

async function expectKept(
  rig: DiskRig,
  log: PartitionLog,
  { facts, at }: Remains<Promised>,
  all: History,
): Promise<void> {
  const { startOffset: start, endOffset: end } = log;
  expect(end, at).toBeGreaterThanOrEqual(facts.durable);
  expect(start, at).toBeGreaterThanOrEqual(facts.start);
  expect(start, at).toBeLessThanOrEqual(facts.plannedStart);
  const { records } = await consume(log);
  expect(records, at).toEqual(all.filter(({ offset }) => offset >= start && offset < end));
  expect(rig.messages('error'), at).toEqual([]);
  const segments = log.segments();
  for (const { baseOffset } of segments.slice(1)) expect(baseOffset, at).toBeGreaterThan(start);
  const bases = new Set(segments.map(({ baseOffset }) => String(baseOffset).padStart(20, '0')));
  for (const name of await rig.filesOfLog()) {
    expect(
      name === 'checkpoint' || (bases.has(name.slice(0, 20)) && /^\d+\.(log|index|timeindex)$/.test(name)),
      `${at}: ${name}`,
    ).toBe(true);
  }
}

test('nothing above the planned start is lost, nothing below the start comes back (invariants 1, 4, 16, 19)', async (context) => {
  const programme = new Programme(context, 20_260_302);
  const { random } = programme;
  const cuts = new PowerCuts<Promised>({ random, randomCuts: inForm({ short: 2, long: 20 }) });
  const history = await live(new DiskRig(), cuts);
  const share = MAX_STATES / cuts.remains.length;
  // A process that merely stops loses nothing: each of these is looked at.
  const chosen = cuts.remains.filter(({ isWhole }) => isWhole || random() < share);
  expect(chosen.length).toBeGreaterThan(500);
  for (const remains of chosen) {
    programme.tried('states');
    const first = new DiskRig(remains.image);
    const log = await openLog(first, 2);
    await expectKept(first, log, remains, history);
    const { startOffset, endOffset } = log;
    for (const second of [first.cut(), new DiskRig(first.disk.contents())]) {
      const again = await openLog(second, 3);
      await expectKept(second, again, remains, history);
      expect(again, `${remains.at}, started twice`).toMatchObject({ startOffset, endOffset });
    }
  }
}, 600_000);
