/** Holds what a start makes of the remains of a power cut against what was promised. */
import { openRecords, type RecordCursor } from '../../../src/batch/records.js';
import { splitBatches } from '../../../src/batch/validate.js';
import { LogError } from '../../../src/core/errors.js';
import { partitionKey, toEpoch, toOffset } from '../../../src/core/types.js';
import type { PartitionLog } from '../../../src/storage/engine.js';
import type { LocalEngine } from '../../../src/storage/local/engine.js';
import { DATA_DIR, type DiskRig, LOG_CONFIG, type Remains } from '../power-cuts.js';
import { directoryOf, END, partition } from '../support.js';
import { type LifeRecord, type Promised, SECOND } from './life.js';
import { metadataText } from './metadata-model.js';

/** What a reader finds. Plain data, to be compared. */
export interface Found {
  readonly startOffset: number;
  readonly endOffset: number;
  readonly cleanedOffset: number;
  readonly records: readonly LifeRecord[];
  /** Offsets that are answered with CORRUPT_LOG, each with the next that can be read. */
  readonly corrupt: readonly (readonly [from: number, to: number])[];
  readonly metadata: string;
  /** Side files by offset. */
  readonly snapshots: Readonly<Record<number, string>>;
}

export interface Kept {
  readonly found: Found;
  readonly log: PartitionLog;
}

const RUBBISH = /\.(cleaned|swap|deleted|tmp)$/;

/** Fails with the name of the cut, without the cost of an assertion library where nothing is wrong. */
function check(isRight: boolean, what: () => string): void {
  if (!isRight) throw new Error(what());
}

/**
 * Starts an engine on a disk and checks invariants 1, 2, 4, 5, 13, 14 and 16.
 * @param history every record that was appended, by offset
 */
export async function expectKept(
  rig: DiskRig,
  remains: Remains<Promised>,
  history: readonly LifeRecord[],
  epoch = 100,
): Promise<Kept> {
  const { facts, at } = remains;
  const engine = await rig.open().catch((cause: unknown) => {
    throw new Error(`${at}: the start failed`, { cause });
  });
  check(!engine.startedClean || facts.closing, () => `${at}: the clean marker outlived the work after it`);
  const metadata = metadataText(await engine.metadata.list(''));
  check(facts.metadata.includes(metadata), () => `${at}: metadata ${metadata}, not one of ${facts.metadata}`);
  await checkSecond(rig, engine, remains, epoch);
  const log = await engine.open(partition(), toEpoch(epoch), LOG_CONFIG);
  const found = { ...(await readFound(log)), metadata, snapshots: await readSnapshots(log) };
  checkBounds(found, remains);
  checkRecords(found, remains, history);
  checkSnapshots(found, remains, await rig.filesOfLog());
  const errors = rig.logger.lines.filter(({ level }) => level === 'error');
  check(errors.length === 0 || found.corrupt.length > 0, () => `${at}: ${JSON.stringify(errors)}`);
  const rubbish = (await rig.filesOfLog()).filter((name) => RUBBISH.test(name));
  check(
    rubbish.every((name) => name === 'checkpoint.tmp'),
    () => `${at}: ${rubbish} were left`,
  );
  return { found, log };
}

async function checkSecond(
  rig: DiskRig,
  engine: LocalEngine,
  { facts: { second }, at }: Remains<Promised>,
  epoch: number,
): Promise<void> {
  if (second.written === 0) return;
  const isThere = (await rig.disk.stat(directoryOf(DATA_DIR, SECOND))) !== undefined;
  check(!(isThere && second.isRemoved), () => `${at}: a removed partition came back`);
  check(isThere || second.isAsked || second.durable === 0, () => `${at}: ${partitionKey(SECOND)} is gone`);
  if (!isThere) return;
  const { endOffset } = await engine.open(SECOND, toEpoch(epoch), LOG_CONFIG);
  const isRight = endOffset >= second.durable && endOffset <= second.written;
  check(isRight, () => `${at}: the second partition ends at ${endOffset}, not in ${JSON.stringify(second)}`);
}

async function readSnapshots(log: PartitionLog): Promise<Record<number, string>> {
  const snapshots: Record<number, string> = {};
  for (const offset of log.sideFiles.offsets('snapshot')) {
    snapshots[offset] = String(await log.sideFiles.read('snapshot', offset));
  }
  return snapshots;
}

/** Each is one that was written, whole, and the last one unless it was to be removed; none is above the end. */
function checkSnapshots(
  { endOffset, snapshots }: Found,
  { facts, at }: Remains<Promised>,
  names: readonly string[],
): void {
  for (const [offset, possible] of Object.entries(facts.snapshots)) {
    const contents = snapshots[Number(offset)] ?? null;
    // A log of which nothing is durable may go as a whole.
    const isLost = Number(offset) > endOffset || (facts.durable === 0 && contents === null);
    const isRight = isLost ? contents === null : possible.includes(contents);
    check(isRight, () => `${at}: the snapshot at ${offset} is ${contents}, not in ${JSON.stringify(possible)}`);
  }
  const expected = Object.keys(snapshots).map((offset) => `${offset.padStart(20, '0')}.snapshot`);
  const there = names.filter((name) => name.includes('snapshot'));
  check(there.sort().join() === expected.sort().join(), () => `${at}: ${there} are there, the log says ${expected}`);
}

async function readFound(log: PartitionLog): Promise<Omit<Found, 'metadata' | 'snapshots'>> {
  const records: LifeRecord[] = [];
  const corrupt: (readonly [number, number])[] = [];
  const { startOffset, endOffset, cleanedOffset } = log;
  let offset = startOffset;
  while (offset < endOffset) {
    try {
      const slice = await log.read(offset, END, 1 << 16);
      if (slice.nextOffset <= offset) throw new Error(`a reader does not get on at ${offset}`);
      for (const batch of slice.chunks.flatMap(splitBatches)) addRecords(records, batch, offset);
      offset = slice.nextOffset;
    } catch (error) {
      if (!(error instanceof LogError) || error.reason !== 'CORRUPT_LOG') throw error;
      const next = toOffset(Number(error.metadata.next_valid_offset ?? endOffset));
      corrupt.push([offset, next]);
      offset = next;
    }
  }
  return { startOffset, endOffset, cleanedOffset, records, corrupt };
}

function addRecords(records: LifeRecord[], batch: Buffer, from: number): void {
  const cursor = openRecords(batch) as RecordCursor;
  while (cursor.next()) {
    if (cursor.offset < from) continue;
    const value = cursor.value === null ? null : String(cursor.value);
    records.push({ offset: cursor.offset, key: String(cursor.key), value });
  }
}

function checkBounds(found: Found, { facts, at, isWhole, isReordered }: Remains<Promised>): void {
  const { startOffset, endOffset, corrupt } = found;
  const bounds = (): string => `${at}: the log has [${startOffset}, ${endOffset}), not as in ${JSON.stringify(facts)}`;
  check(endOffset >= facts.durable && endOffset <= facts.written + facts.attempted.length, bounds);
  check(startOffset >= facts.trimmed && startOffset <= facts.trimming, bounds);
  check(!isWhole || endOffset >= facts.written, bounds);
  const isExpected = corrupt.length === 0 || (isReordered && corrupt.every(([from]) => from >= facts.durable));
  check(isExpected, () => `${at}: ${JSON.stringify(corrupt)} is corrupt, durable up to ${facts.durable}`);
}

/** Every record is the one that was appended, none is missing that compaction had no reason to remove. */
function checkRecords(found: Found, { facts, at }: Remains<Promised>, history: readonly LifeRecord[]): void {
  const { startOffset, endOffset, cleanedOffset, records, corrupt } = found;
  const recordAt = (offset: number): LifeRecord | undefined =>
    offset < facts.written ? history[offset] : facts.attempted[offset - facts.written];
  const seen = new Map<string, string | null>();
  let next = startOffset;
  for (const record of records) {
    const { offset, key, value } = record;
    const appended = recordAt(offset);
    const isRight = offset >= next && key === appended?.key && value === appended.value;
    check(isRight, () => `${at}: ${JSON.stringify(record)} instead of ${JSON.stringify(appended)}`);
    const isMissing = offset > Math.max(next, facts.compacting) && !corrupt.some(([, to]) => to === offset);
    check(!isMissing, () => `${at}: offsets from ${next} are missing before ${offset}`);
    check(offset >= cleanedOffset || !seen.has(key), () => `${at}: ${key} twice below ${cleanedOffset}`);
    seen.set(key, value);
    next = offset + 1;
  }
  const isComplete = next === endOffset || endOffset <= facts.compacting || corrupt.some(([, to]) => to === endOffset);
  check(isComplete, () => `${at}: offsets from ${next} are missing at the end, ${endOffset}`);
  if (corrupt.length === 0) checkTable(found, seen, recordAt, at);
}

/** A consumer of the whole log ends with the same table whether it was compacted or not. */
function checkTable(
  { startOffset, endOffset }: Found,
  seen: ReadonlyMap<string, string | null>,
  recordAt: (offset: number) => LifeRecord | undefined,
  at: string,
): void {
  const expected = new Map<string, string | null>();
  for (let offset = startOffset; offset < endOffset; offset++) {
    const { key, value } = recordAt(offset)!;
    expected.set(key, value);
  }
  for (const [key, value] of expected) {
    check((seen.get(key) ?? null) === value, () => `${at}: ${key} is ${seen.get(key)} instead of ${value}`);
  }
  for (const key of seen.keys()) check(expected.has(key), () => `${at}: ${key} came from nowhere`);
}
