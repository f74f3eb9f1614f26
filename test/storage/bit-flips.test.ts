/**
 * Each bit of each file turned over, one at a time: the log answers as before, or it names what is corrupt and serves
 * everything else. What is damaged is never cut off, never served, and never ends the start with anything but a reason.
 */
import { beforeAll, describe, test } from 'vitest';
import { inForm, Programme } from '../support/programme.js';
import { inState, type KnownBatch, withBitFlipped, withFile } from './damage.js';
import { allDurable, checkStart, type DamagedCopy, examineCopies, filesOf } from './damaged-copies.js';
import { DATA_DIR, type DiskRig } from './power-cuts.js';
import { type SampleLog, type Stop, sampleCompactedLog, sampleLog, sampleUnsynced } from './sample-logs.js';

const SEGMENT_BYTES = inForm({ short: 4 * 1024, long: 64 * 1024 });
const COMPACTED_RECORDS = inForm({ short: 30, long: 500 });
/** One in this many states is closed and opened once more, an odd number so that each field has its turn. */
const REOPENED = inForm({ short: 9, long: 3 });
/** Under an open log one in this many bits is turned over. */
const LIVE_STRIDE = inForm({ short: 11, long: 1 });
const STOPS: readonly Stop[] = ['clean', 'unclean'];
const SIDE_FILE = /\.(index|timeindex)$|\/checkpoint$/;

/** Looks at the log with each bit of `file` turned over. Resolves to their number. */
async function flipEachBit(
  sample: SampleLog,
  file: string,
  check: (copy: DamagedCopy, byte: number) => Promise<void>,
): Promise<number> {
  const whole = sample.image.get(file)!;
  const damages = {
    file,
    count: whole.length * 8,
    contents: (bit: number) => withBitFlipped(whole, bit),
    name: bitName,
  };
  await examineCopies(
    sample,
    damages,
    (bit) => bit % REOPENED === 0,
    (copy) => check(copy, copy.n >> 3),
  );
  return damages.count;
}

function bitName(bit: number): string {
  return `bit ${bit & 7} of byte ${bit >> 3}`;
}

/** The batch of a `.log` file in which a byte lies. */
function batchesIn(sample: SampleLog, file: string): (byte: number) => KnownBatch {
  const contents = sample.image.get(file)!;
  const found: { batch: KnownBatch; end: number }[] = [];
  let end = 0;
  for (const batch of sample.known.batches) {
    if (!contents.subarray(end, end + batch.bytes.length).equals(batch.bytes)) continue;
    end += batch.bytes.length;
    found.push({ batch, end });
  }
  if (end !== contents.length) throw new Error(`${file} holds something else`);
  return (byte) => found.find((one) => byte < one.end)!.batch;
}

function logFilesOf(sample: SampleLog): string[] {
  return filesOf(sample).filter((path) => path.endsWith('.log'));
}

/** Files in the log's directory that are derived from others. */
function sideFilesOf(sample: SampleLog): string[] {
  return filesOf(sample).filter((path) => SIDE_FILE.test(path));
}

async function flipLogs(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of logFilesOf(sample)) {
    const batchWith = batchesIn(sample, file);
    const bits = await flipEachBit(sample, file, (copy, byte) =>
      sample.known.checkAllBut(copy.log, batchWith(byte), copy.file),
    );
    programme.tried('flipped bits', bits);
  }
}

async function flipSideFiles(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of sideFilesOf(sample)) {
    programme.tried('flipped bits', await flipEachBit(sample, file, ({ log }) => sample.known.checkWhole(log)));
  }
}

/** Turns bits over under a log that is open and was read already. */
async function flipUnderOpenLog(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of logFilesOf(sample)) {
    const whole = sample.image.get(file)!;
    const batchWith = batchesIn(sample, file);
    const bits = Array.from({ length: Math.floor((whole.length * 8) / LIVE_STRIDE) }, (_, n) => n * LIVE_STRIDE);
    const damages = { file, count: bits.length, contents: () => whole, name: (n: number) => bitName(bits[n]!) };
    await examineCopies(
      sample,
      damages,
      () => false,
      async ({ log, n, file: copy, rig }) => {
        await sample.known.checkWhole(log);
        overwrite(rig, copy, withBitFlipped(whole, bits[n]!));
        await sample.known.checkAllBut(log, batchWith(bits[n]! >> 3), copy);
      },
    );
    programme.tried('flipped bits', bits.length);
  }
}

function overwrite({ disk }: DiskRig, path: string, contents: Buffer): void {
  const fd = disk.openSync(path, 'update');
  disk.writevSync(fd, [contents], 0);
  disk.closeSync(fd);
}

async function flipSharedFiles(sample: SampleLog, programme: Programme): Promise<void> {
  for (const file of filesOf(sample, DATA_DIR)) {
    const contents = sample.image.get(file)!;
    for (let bit = 0; bit < contents.length * 8; bit++) {
      const image = withFile(sample.image, file, withBitFlipped(contents, bit));
      await inState(`${bitName(bit)} of ${file}`, () => checkStart(sample, image, file));
    }
    programme.tried('flipped bits', contents.length * 8);
  }
}

/** Errors by the ten thousand: their stacks would take a tenth of the time, and nobody reads them. */
beforeAll(() => {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  return () => {
    Error.stackTraceLimit = stackTraceLimit;
  };
});

describe.each(STOPS)('after a stop that was %s', (stop) => {
  test('a flipped bit in a segment is found, and its batch alone refused (invariant 13)', async (context) => {
    await flipLogs(await sampleLog(stop, SEGMENT_BYTES), new Programme(context, 1));
  }, 3_600_000);

  test('a flipped bit in a segment that compaction wrote is found, and its batch alone refused (invariant 13)', async (context) => {
    await flipLogs(await sampleCompactedLog(stop, COMPACTED_RECORDS), new Programme(context, 1));
  }, 3_600_000);

  test('a flipped bit in an index or a checkpoint changes no answer (invariants 13, 19)', async (context) => {
    const programme = new Programme(context, 1);
    await flipSideFiles(await sampleLog(stop, SEGMENT_BYTES), programme);
    await flipSideFiles(await sampleCompactedLog(stop, COMPACTED_RECORDS), programme);
  }, 3_600_000);

  test('a bit that flips under an open log is found, and its batch alone refused (invariant 13)', async (context) => {
    const programme = new Programme(context, 1);
    await flipUnderOpenLog(await sampleLog(stop, SEGMENT_BYTES), programme);
    await flipUnderOpenLog(await sampleCompactedLog(stop, COMPACTED_RECORDS), programme);
  }, 3_600_000);

  test('a flipped bit in a file of the data directory changes no answer, or the start names the file (invariant 13)', async (context) => {
    await flipSharedFiles(await sampleLog(stop, SEGMENT_BYTES), new Programme(context, 1));
  }, 3_600_000);
});

test('a flipped bit in a batch that holds record batches has none of them taken for batches of the log (invariant 13)', async (context) => {
  await flipLogs(allDurable(await sampleUnsynced('record batches')), new Programme(context, 1));
}, 3_600_000);
