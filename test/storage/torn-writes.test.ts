/**
 * Writes that a power cut has torn, at every byte: the file ends there, or goes on with zeros, or with what its blocks
 * held before. Of a log that is the last batch; of every other file all of it.
 */
import { describe, test } from 'vitest';
import { baseOffsetOf, leaderEpochOf } from '../../src/batch/layout.js';
import { checkBatch } from '../../src/batch/validate.js';
import { inForm, Programme } from '../support/programme.js';
import { KnownLog, withFile } from './damage.js';
import {
  allDurable,
  checkStart,
  type DamagedCopy,
  type Damages,
  examineCopies,
  filesOf,
  SAMPLE_DIRECTORY,
} from './damaged-copies.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import {
  type LastBatch,
  type SampleLog,
  type Stop,
  sampleCompactedLog,
  sampleLog,
  sampleUnsynced,
} from './sample-logs.js';
import { batchAt } from './support.js';

const JOURNAL_FILE = `${DATA_DIR}/metadata.log`;
const LOG_FILE = `${SAMPLE_DIRECTORY}/00000000000000000000.log`;
const LAST_BATCHES: readonly LastBatch[] = ['records', 'record batches'];
const STOPS: readonly Stop[] = ['clean', 'unclean'];
const SECTOR_BYTES = 512;
/** Fields of a batch header. */
const LENGTH_AT = 8;
const CRC_AT = 17;
/** Closing and opening once more is done with one in this many states. */
const REOPENED = inForm({ short: 5, long: 1 });

/** What is behind the byte at which a write ended: as many bytes as were to be written, or none (the file ends). */
type Behind = (length: number) => Buffer;

const NOTHING: Behind = () => Buffer.alloc(0);
const ZEROS: Behind = (length) => Buffer.alloc(length);

function noise(programme: Programme): Behind {
  return (length) => Buffer.from(Array.from({ length }, () => programme.below(256)));
}

/** Old contents of a block, over and over, as long as is needed. */
function stale(bytes: Buffer): Behind {
  return (length) => Buffer.alloc(length, bytes);
}

/** A file whose last write, from byte `start` on, is torn at each of its bytes, with each of `behind`. */
function tornAt(file: string, whole: Buffer, start: number, behind: readonly Behind[]): Damages {
  const rest = behind.map((one) => one(whole.length - start));
  const byteOf = (n: number): number => Math.floor(n / rest.length);
  return {
    file,
    count: (whole.length - start) * rest.length,
    contents: (n) => Buffer.concat([whole.subarray(0, start + byteOf(n)), rest[n % rest.length]!.subarray(byteOf(n))]),
    name: (n) => `variant ${n % rest.length} of a write torn at byte ${byteOf(n)}`,
  };
}

/** As if the sectors of the last write had reached the disk in any order: each set of them is missing once. */
function tornBySectors(file: string, whole: Buffer, start: number, behind: Behind): Damages {
  const firstSector = Math.floor(start / SECTOR_BYTES);
  const sectorCount = Math.ceil(whole.length / SECTOR_BYTES) - firstSector;
  const rest = Buffer.concat([whole.subarray(0, start), behind(whole.length - start)]);
  return {
    file,
    count: 2 ** sectorCount,
    contents: (lost) => {
      const contents = Buffer.from(whole);
      for (let sector = 0; sector < sectorCount; sector++) {
        const from = Math.max(start, (firstSector + sector) * SECTOR_BYTES);
        if (lost & (1 << sector)) rest.copy(contents, from, from, (firstSector + sector + 1) * SECTOR_BYTES);
      }
      return contents;
    },
    name: (lost) => `sectors ${lost.toString(2)} lost`,
  };
}

/** Blocks that held this very log before: its beginning, and what an earlier epoch had written at this place. */
function staleBlocksOf({ known }: SampleLog): readonly Behind[] {
  const at = known.batches.at(-1)!.baseOffset;
  const cutOff = [0, 1, 2, 3].map((n) => batchAt(at + n, { leaderEpoch: 2 }));
  return [stale(Buffer.concat(known.batches.map(({ bytes }) => bytes))), stale(Buffer.concat(cutOff))];
}

function startOfLast(sample: SampleLog): number {
  return sample.image.get(LOG_FILE)!.length - sample.known.batches.at(-1)!.bytes.length;
}

/**
 * Whether the last write is torn such that another intact batch stands in its place: the base offset and the leader
 * epoch, which no CRC covers, are the right ones, and the rest is an old batch at exactly that byte. No reader of the format could
 * tell. It takes a write that ends within the first bytes of a batch, and a file system that shows what its blocks held before.
 */
function isForged(contents: Buffer, start: number, whole: Buffer): boolean {
  return (
    !contents.equals(whole) &&
    checkBatch(contents, start, contents.length) === undefined &&
    baseOffsetOf(contents, start) === baseOffsetOf(whole, start) &&
    leaderEpochOf(contents, start) === leaderEpochOf(whole, start)
  );
}

function withoutForged(damages: Damages, start: number, whole: Buffer): Damages {
  const honest = Array.from({ length: damages.count }, (_, n) => n).filter(
    (n) => !isForged(damages.contents(n), start, whole),
  );
  // Tears between the base offset and the CRC, before each of two kinds of old blocks.
  if (damages.count - honest.length > 2 * (CRC_AT - LENGTH_AT + 1))
    throw new Error(`${damages.count - honest.length} forged batches`);
  return {
    ...damages,
    count: honest.length,
    contents: (n) => damages.contents(honest[n]!),
    name: (n) => damages.name(honest[n]!),
  };
}

/** The last batch is whole, or it was never there. */
async function expectCutOff(sample: SampleLog, damages: Damages, programme: Programme): Promise<void> {
  const whole = sample.image.get(LOG_FILE)!;
  const before = new KnownLog(sample.known.batches.slice(0, -1));
  await examineCopies(
    sample,
    damages,
    (n) => n % REOPENED === 0,
    async (copy) => {
      const isWhole = damages.contents(copy.n).equals(whole);
      await expectEnd(copy, isWhole ? sample.known : before, isWhole ? whole.length : startOfLast(sample));
    },
  );
  programme.tried('torn writes', damages.count);
}

async function expectEnd({ log, file, rig }: DamagedCopy, known: KnownLog, bytes: number): Promise<void> {
  await known.checkWhole(log);
  if (log.endOffset !== known.endOffset) throw new Error(`the log ends at ${log.endOffset}`);
  const size = (await rig.disk.stat(file))?.size;
  if (size !== bytes) throw new Error(`the file has ${size} bytes, not ${bytes}`);
  const [complaint] = rig.messages('error');
  if (complaint !== undefined) throw new Error(`a torn write is reported as an error: ${complaint}`);
}

/** The last batch was durable: it is refused, and nothing is cut off. */
async function expectRefused(sample: SampleLog, damages: Damages, programme: Programme): Promise<void> {
  const whole = sample.image.get(damages.file)!;
  await examineCopies(
    sample,
    damages,
    (n) => n % REOPENED === 0,
    async ({ log, n, file, rig }) => {
      const contents = damages.contents(n);
      if (contents.equals(whole)) return await sample.known.checkWhole(log);
      await sample.known.checkAllBut(log, sample.known.batches.at(-1)!, file);
      const size = (await rig.disk.stat(file))?.size;
      if (size !== contents.length) throw new Error(`the file has ${size} bytes, not ${contents.length}`);
    },
  );
  programme.tried('torn writes', damages.count);
}

function lastBatchTorn(sample: SampleLog, behind: readonly Behind[]): Damages {
  const whole = sample.image.get(LOG_FILE)!;
  const start = startOfLast(sample);
  return withoutForged(tornAt(LOG_FILE, whole, start, behind), start, whole);
}

describe.each(LAST_BATCHES)('a batch of %s that is torn', (kind) => {
  test('is cut off where nobody was told that it is durable (invariants 14, 15)', async (context) => {
    const programme = new Programme(context, 3);
    const sample = await sampleUnsynced(kind);
    const behind = [NOTHING, ZEROS, noise(programme), ...staleBlocksOf(sample)];
    await expectCutOff(sample, lastBatchTorn(sample, behind), programme);
  }, 600_000);

  test('is kept and refused where it was durable (invariants 13, 14)', async (context) => {
    const programme = new Programme(context, 3);
    const sample = allDurable(await sampleUnsynced(kind));
    const behind = [NOTHING, ZEROS, noise(programme), ...staleBlocksOf(sample)];
    await expectRefused(sample, lastBatchTorn(sample, behind), programme);
  }, 600_000);
});

test('sectors of a batch that reach the disk in any order: it is cut off, or refused where it was durable (invariant 14)', async (context) => {
  const programme = new Programme(context, 3);
  const sample = await sampleUnsynced('many sectors');
  const whole = sample.image.get(LOG_FILE)!;
  for (const behind of [ZEROS, noise(programme), ...staleBlocksOf(sample)]) {
    const damages = tornBySectors(LOG_FILE, whole, startOfLast(sample), behind);
    await expectCutOff(sample, damages, programme);
    await expectRefused(allDurable(sample), damages, programme);
  }
}, 600_000);

test('a batch that is torn after a clean stop is kept and refused (invariant 13)', async (context) => {
  const programme = new Programme(context, 3);
  const sample = await sampleLog('clean', 2048);
  const file = filesOf(sample)
    .filter((path) => path.endsWith('.log'))
    .sort()
    .at(-1)!;
  const whole = sample.image.get(file)!;
  const start = whole.length - sample.known.batches.at(-1)!.bytes.length;
  const behind = [NOTHING, ZEROS, noise(programme), ...staleBlocksOf(sample)];
  await expectRefused(sample, tornAt(file, whole, start, behind), programme);
}, 600_000);

test.for(STOPS)(
  'a torn index or checkpoint changes no answer after a stop that was %s (invariants 14, 19)',
  { timeout: 600_000 },
  async (stop, context) => {
    const programme = new Programme(context, 3);
    for (const sample of [await sampleLog(stop, 2048), await sampleCompactedLog(stop, 30)]) {
      for (const file of filesOf(sample).filter((path) => /\.(index|timeindex)$|\/checkpoint$/.test(path))) {
        const whole = sample.image.get(file)!;
        const damages = tornAt(file, whole, 0, [NOTHING, ZEROS, noise(programme), stale(whole)]);
        await examineCopies(
          sample,
          damages,
          (n) => n % REOPENED === 0,
          ({ log }) => sample.known.checkWhole(log),
        );
        programme.tried('torn writes', damages.count);
      }
    }
  },
);

test.for(STOPS)(
  'a torn file of the data directory changes no answer after a stop that was %s, or the start names it (invariant 14)',
  { timeout: 600_000 },
  async (stop, context) => {
    const programme = new Programme(context, 3);
    const sample = await sampleLog(stop, 1024);
    for (const file of filesOf(sample, DATA_DIR)) {
      const whole = sample.image.get(file)!;
      const damages = tornAt(file, whole, 0, [NOTHING, ZEROS, noise(programme), stale(whole)]);
      for (let n = 0; n < damages.count; n++) {
        await checkStart(sample, withFile(sample.image, file, damages.contents(n)), file);
      }
      programme.tried('torn writes', damages.count);
    }
  },
);

test('a torn change of the metadata is cut off where nobody was told that it is durable (invariant 14)', async (context) => {
  const programme = new Programme(context, 3);
  const rig = new DiskRig();
  const engine = await rig.open();
  await engine.metadata.compareAndSet('topics/orders', '{"partitions":3}', 0);
  const metadata = JSON.stringify(await engine.metadata.list(''));
  const start = (await rig.disk.stat(JOURNAL_FILE))!.size;
  await engine.metadata.compareAndSet('topics/payments', '{"partitions":1}', 0);
  const image = rig.disk.contents();
  const whole = image.get(JOURNAL_FILE)!;
  const behind = [NOTHING, ZEROS, noise(programme), stale(whole.subarray(0, start))];
  const damages = tornAt(JOURNAL_FILE, whole, start, behind);
  for (let n = 0; n < damages.count; n++) {
    const contents = damages.contents(n);
    if (contents.equals(whole)) continue;
    const torn = await new DiskRig(withFile(image, JOURNAL_FILE, contents)).open();
    const found = JSON.stringify(await torn.metadata.list(''));
    if (found !== metadata) throw new Error(`${damages.name(n)}: the metadata is ${found}`);
    const result = await torn.metadata.compareAndSet('topics/refunds', '{"partitions":2}', 0);
    if (!result.ok) throw new Error(`${damages.name(n)}: the metadata cannot be changed`);
    await torn.close();
  }
  programme.tried('torn writes', damages.count);
}, 600_000);
