/**
 * Every decoder of a file on files that are broken in many places at once, and on noise: an answer or a typed error, within
 * bounds of time and memory.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { test } from 'vitest';
import { crc32c } from '../../src/batch/crc32c.js';
import { RECORD_BATCH_OVERHEAD, writeCrc, writeInt32 } from '../../src/batch/layout.js';
import { dumpLogFile } from '../../src/cli/log-dump.js';
import { verifyDataDir } from '../../src/cli/log-verify.js';
import { Output } from '../../src/cli/output.js';
import { loadBrokerConfig } from '../../src/config/load.js';
import { LogError } from '../../src/core/errors.js';
import { toEpoch, toOffset } from '../../src/core/types.js';
import type { PartitionLog } from '../../src/storage/engine.js';
import { decodeCheckpoint } from '../../src/storage/local/checkpoint.js';
import { inspectLogFile } from '../../src/storage/local/inspect.js';
import { OffsetIndex } from '../../src/storage/local/offset-index.js';
import { decodeRecoveryPoints } from '../../src/storage/local/recovery-points.js';
import { TimeIndex } from '../../src/storage/local/time-index.js';
import { verifyDataDirectory } from '../../src/storage/local/verify.js';
import { mutate } from '../support/mutate.js';
import { type DiskImage, PowerLossDisk } from '../support/power-loss-disk.js';
import { inForm, Programme } from '../support/programme.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { filesOf, SAMPLE_DIRECTORY } from './damaged-copies.js';
import { DATA_DIR, DiskRig } from './power-cuts.js';
import { POINTS_FILE, type SampleLog, sampleCompactedLog, sampleLog } from './sample-logs.js';
import { BASE_TIME, batchAt, END, partition } from './support.js';

const FACTOR = inForm({ short: 1, long: 50 });
const TIMEOUT_MS = 3_600_000;
/** Time of the processor, not of the clock, so that a busy machine changes nothing. */
const MAX_CPU_MS = 200;
/** What one execution may allocate: no file here is larger than 16 KiB, whatever length it claims. */
const MAX_GROWTH_BYTES = 24 * 1024 * 1024;

/** Something broken, and what is done with it. */
interface Trial {
  readonly run: () => unknown;
  /** Describes what is broken, for messages. */
  readonly input: () => string;
}

/** Makes and runs so many trials. Throws, with the input, at anything but a typed error, and at too much time or memory. */
async function fuzz(programme: Programme, executions: number, next: () => Trial): Promise<void> {
  for (let execution = 0; execution < executions; execution++) {
    const { run, input } = next();
    const memory = process.memoryUsage().arrayBuffers;
    const cpu = process.cpuUsage();
    try {
      await run();
      const { user, system } = process.cpuUsage(cpu);
      if ((user + system) / 1000 > MAX_CPU_MS) throw new Error(`took ${(user + system) / 1000} ms`);
      const growth = process.memoryUsage().arrayBuffers - memory;
      if (growth > MAX_GROWTH_BYTES) throw new Error(`allocated ${growth} bytes`);
    } catch (error) {
      throw new Error(`execution ${execution}: ${String(error)}; the input: ${input()}`, { cause: error });
    }
  }
  programme.tried('executions', executions);
}

async function attempt(run: () => unknown): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof LogError) || error.reason === 'INTERNAL') throw error;
  }
}

/** Makes what protects a file right again, so that what lies behind is reached. */
function repaired(path: string, bytes: Buffer): Buffer {
  if (/\.log(\.swap)?$/.test(path)) return withRightBatches(bytes);
  if (path !== POINTS_FILE && basename(path) !== 'checkpoint') return bytes;
  const lines = bytes.toString('latin1').split('\n').slice(0, -2);
  const text = path === POINTS_FILE ? `${lines.join('\n')}\n` : lines.join('\n');
  const checksum = crc32c(Buffer.from(text, 'latin1')).toString(16).padStart(8, '0');
  return Buffer.from(`${lines.join('\n')}\n${checksum}\n`, 'latin1');
}

/** The CRC of each batch that can be found; of the last one the length as well. */
function withRightBatches(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let at = 0; at + RECORD_BATCH_OVERHEAD <= copy.length; ) {
    const claimed = copy.readInt32BE(at + 8) + 12;
    const size = claimed >= RECORD_BATCH_OVERHEAD && at + claimed <= copy.length ? claimed : copy.length - at;
    writeInt32(copy, at + 8, size - 12);
    writeCrc(copy, at);
    at += size;
  }
  return copy;
}

/** Broken contents for a file: mutated, mutated but for its checksums, or noise. */
function broken(programme: Programme, path: string, valid: Buffer): Buffer {
  const below = (limit: number): number => programme.below(limit);
  const kind = below(8);
  if (kind === 0) return Buffer.from(Array.from({ length: below(600) }, () => below(256)));
  const bytes = valid.length === 0 ? Buffer.from([below(256)]) : mutate(valid, below);
  return kind < 4 ? bytes : repaired(path, bytes);
}

function oneOf<T>(programme: Programme, values: readonly T[]): T {
  return values[programme.below(values.length)]!;
}

/** Samples of every kind of file there is. */
async function samples(): Promise<readonly SampleLog[]> {
  return [
    await sampleLog('clean', 1500),
    await sampleLog('unclean', 1500),
    await sampleCompactedLog('clean', 20),
    await sampleCompactedLog('unclean', 20),
  ];
}

function contentsOf(all: readonly SampleLog[], pattern: RegExp): readonly Buffer[] {
  return all.flatMap(({ image }) => [...image].filter(([path]) => pattern.test(path)).map(([, contents]) => contents));
}

/** Names under which something may lie in the directory of a log. */
const STRANGE_NAMES = [
  '00000000000000000007.log',
  '00000000000000000000.log.swap',
  '00000000000000000000.log.deleted',
  '00000000000000000000.log.cleaned',
  '00000000000000000003.index',
  '99999999999999999999.log',
  '0.log',
  'checkpoint.tmp',
  'x',
];

interface BrokenImage {
  readonly image: DiskImage;
  /** Paths of the files that are broken. */
  readonly changed: readonly string[];
  /** Tells the files that are broken. */
  readonly input: () => string;
}

/** A data directory in which some files are broken, and some are there that do not belong. */
function brokenImage(programme: Programme, sample: SampleLog, paths: readonly string[]): BrokenImage {
  const image = new Map(sample.image);
  const changed: string[] = [];
  for (let n = programme.below(2); n >= 0; n--) {
    const path = oneOf(programme, paths);
    image.set(path, broken(programme, path, image.get(path)!));
    changed.push(path);
  }
  if (programme.below(4) === 0) {
    const path = `${SAMPLE_DIRECTORY}/${oneOf(programme, STRANGE_NAMES)}`;
    image.set(path, broken(programme, path, oneOf(programme, [...sample.image.values()])));
    changed.push(path);
  }
  const input = (): string => changed.map((path) => `${path} = ${image.get(path)?.toString('hex')}`).join(', ');
  return { image, changed, input };
}

/** Everything a reader may ask of a log. */
async function use(log: PartitionLog): Promise<void> {
  let offset: number = log.startOffset;
  for (let reads = 0; offset < log.endOffset && reads < 20; reads++) {
    try {
      const { nextOffset } = await log.read(toOffset(offset), END, 500);
      if (nextOffset <= offset) throw new Error(`a read at ${offset} comes to ${nextOffset}`);
      offset = nextOffset;
    } catch (error) {
      if (!(error instanceof LogError) || error.reason !== 'CORRUPT_LOG') throw error;
      offset = Math.max(offset + 1, Number(error.metadata.next_valid_offset ?? 0));
    }
  }
  await attempt(() => log.batchForTime(BASE_TIME + 50));
  await attempt(() => log.batchForMaxTimestamp(log.endOffset));
  await attempt(async () => {
    await log.append([batchAt(log.endOffset, { leaderEpoch: 9 })], log.endOffset);
    await log.flush(log.endOffset);
  });
}

async function openUseAndClose(sample: SampleLog, image: DiskImage): Promise<void> {
  const engine = await new DiskRig(image).open();
  try {
    await use(await engine.open(partition(), toEpoch(9), sample.config));
  } finally {
    await engine.close();
  }
}

async function verifyAndInspect(image: DiskImage, path: string): Promise<void> {
  const disk = new PowerLossDisk(BASE_TIME, image);
  await attempt(async () => {
    for await (const report of verifyDataDirectory(DATA_DIR, disk)) JSON.stringify(report);
  });
  await attempt(async () => {
    for await (const { position } of inspectLogFile(path, disk)) if (position < 0) throw new Error('a position');
  });
}

test(
  'decoders of small files answer any bytes with a value or a reason (invariant 22)',
  async (context) => {
    const programme = new Programme(context);
    const all = await samples();
    const decoders: readonly [string, RegExp, (bytes: Buffer) => unknown][] = [
      [`${SAMPLE_DIRECTORY}/checkpoint`, /\/checkpoint$/, decodeCheckpoint],
      [POINTS_FILE, /recovery-point/, decodeRecoveryPoints],
      ['x.index', /\.index$/, (bytes) => OffsetIndex.decode(bytes)?.floor(7)],
      ['x.timeindex', /\.timeindex$/, (bytes) => TimeIndex.decode(bytes)?.ceiling(BASE_TIME)],
    ];
    const valid = decoders.map(([, pattern]) => contentsOf(all, pattern));
    await fuzz(programme, 8_500 * FACTOR, () => {
      const which = programme.below(decoders.length);
      const [path, , decode] = decoders[which]!;
      const bytes = broken(programme, path, oneOf(programme, valid[which]!));
      return { run: () => decode(bytes), input: () => `${path} = ${bytes.toString('hex')}` };
    });
  },
  TIMEOUT_MS,
);

test(
  'a log in whose directory anything is broken is opened and read, or refused for a reason (invariants 13, 22)',
  async (context) => {
    const programme = new Programme(context);
    const all = await samples();
    await fuzz(programme, 4_500 * FACTOR, () => {
      const sample = oneOf(programme, all);
      const paths = [...filesOf(sample), POINTS_FILE];
      const { image, input } = brokenImage(programme, sample, paths);
      return { run: () => attempt(() => openUseAndClose(sample, image)), input };
    });
  },
  TIMEOUT_MS,
);

test(
  'a data directory in which anything is broken is opened, or refused for a reason (invariants 13, 22)',
  async (context) => {
    const programme = new Programme(context);
    const all = await samples();
    await fuzz(programme, 2_000 * FACTOR, () => {
      const sample = oneOf(programme, all);
      const { image, input } = brokenImage(programme, sample, filesOf(sample, DATA_DIR));
      return { run: () => attempt(() => openUseAndClose(sample, image)), input };
    });
  },
  TIMEOUT_MS,
);

test(
  'verifying and inspecting broken files ends in a report or a reason (invariant 22)',
  async (context) => {
    const programme = new Programme(context);
    const all = await samples();
    await fuzz(programme, 2_500 * FACTOR, () => {
      const sample = oneOf(programme, all);
      const paths = [...filesOf(sample), ...filesOf(sample, DATA_DIR)];
      const { image, changed, input } = brokenImage(programme, sample, paths);
      return { run: () => verifyAndInspect(image, changed[0]!), input };
    });
  },
  TIMEOUT_MS,
);

test(
  '`log verify` and `log dump` on broken files print what they find, or fail for a reason (invariant 22)',
  async (context) => {
    const programme = new Programme(context);
    const sample = await sampleLog('unclean', 1500);
    const root = temporaryDirectory();
    const paths = [...filesOf(sample), ...filesOf(sample, DATA_DIR)];
    const real = (path: string): string => join(root, path.slice(DATA_DIR.length));
    for (const path of paths) {
      mkdirSync(dirname(real(path)), { recursive: true });
      writeFileSync(real(path), sample.image.get(path)!);
    }
    const output = new Output(new Writable({ write: (_chunk, _encoding, done) => done() }));
    await fuzz(programme, 500 * FACTOR, () => {
      const path = oneOf(programme, paths);
      const bytes = broken(programme, path, sample.image.get(path)!);
      const run = async (): Promise<void> => {
        writeFileSync(real(path), bytes);
        await attempt(() => verifyDataDir(root, output));
        await attempt(() => dumpLogFile(real(path), true, output));
        await output.flush();
        writeFileSync(real(path), sample.image.get(path)!);
      };
      return { run, input: () => `${path} = ${bytes.toString('hex')}` };
    });
  },
  TIMEOUT_MS,
);

test(
  'a configuration file of any contents is taken, or refused for a reason (invariant 22)',
  async (context) => {
    const programme = new Programme(context);
    const valid = [
      '{"data.dir": "./data", "log.level": "info", "port": 7171}',
      '{"log.segment.bytes": 1048576, "log.retention.ms": -1, "log.disk.reserve.bytes": "1000"}',
      '{"__proto__": 1, "constructor": {"prototype": []}, "data.dir": null}',
    ].map((text) => Buffer.from(text));
    await fuzz(programme, 2_000 * FACTOR, () => {
      const contents = broken(programme, 'config.json', oneOf(programme, valid)).toString('utf8');
      const file = { path: 'config.json', contents };
      return {
        run: () => attempt(() => loadBrokerConfig({ flags: {}, environment: {}, file })),
        input: () => JSON.stringify(contents),
      };
    });
  },
  TIMEOUT_MS,
);
