/** Runs work on a disk that is cut off the power before each of its changes, and hands out what may be left. */
import { crc32c } from '../../src/batch/crc32c.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { type LocalEngine, openLocalEngine } from '../../src/storage/local/engine.js';
import type { FileSystem } from '../../src/storage/local/fs.js';
import { ManualClock } from '../support/manual-clock.js';
import { type DiskImage, PowerLossDisk } from '../support/power-loss-disk.js';
import { type LogLine, type RecordingLogger, recordingLogger } from '../support/recording-logger.js';
import { SMALL } from './keyed.js';
import { BASE_TIME, directoryOf, partition } from './support.js';

export const DATA_DIR = '/data';

/** What a cut has left, and what was promised by then. */
export interface Remains<Facts> {
  readonly image: DiskImage;
  readonly facts: Facts;
  /** Names the cut, for messages. */
  readonly at: string;
  /** Whether this is what a process leaves that merely ends. */
  readonly isWhole: boolean;
  /** Whether sectors were written in another order than that of the writes. */
  readonly isReordered: boolean;
}

export interface CutOptions {
  /** In [0, 1). */
  readonly random: () => number;
  /** Images by chance for each change, besides the regular ones; of two sizes of sectors as many again. */
  readonly randomCuts: number;
  readonly reorderedCuts?: number;
}

const SECTOR_BYTES: readonly number[] = [512, 4096];

/** Tells states apart that were met before, by a hash of 53 bits: bounded memory for millions of them. */
export class StateSet {
  readonly #hashes = new Set<number>();
  readonly #contents = new WeakMap<Buffer, number>();
  readonly #names = new Map<string, number>();

  get size(): number {
    return this.#hashes.size;
  }

  /** Whether this combination of files and facts is new. */
  add(image: DiskImage, facts: string): boolean {
    let low = this.#hashOf(facts);
    let high = facts.length;
    // A sum, so that the order of the files does not matter.
    for (const [path, contents] of image) {
      const mixed = Math.imul(this.#hashOf(path) ^ Math.imul(this.#crcOf(contents), 0x9e3779b1), 0x85ebca6b);
      low = (low + mixed) >>> 0;
      high = (high + Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35)) >>> 0;
    }
    const before = this.#hashes.size;
    this.#hashes.add((high & 0x1fffff) * 2 ** 32 + low);
    return this.#hashes.size > before;
  }

  #crcOf(contents: Buffer): number {
    let crc = this.#contents.get(contents);
    if (crc === undefined) {
      crc = crc32c(contents) ^ contents.length;
      this.#contents.set(contents, crc);
    }
    return crc;
  }

  #hashOf(text: string): number {
    let hash = this.#names.get(text);
    if (hash === undefined) {
      hash = crc32c(Buffer.from(text));
      if (this.#names.size > 10_000) this.#names.clear();
      this.#names.set(text, hash);
    }
    return hash;
  }
}

/** Collects what may be left at each change, each different image once. */
export class PowerCuts<Facts> {
  readonly remains: Remains<Facts>[] = [];
  readonly #options: CutOptions;
  readonly #states: StateSet;
  #cutCount = 0;

  /** @param states those that were met before, in other runs as well */
  constructor(options: CutOptions, states: StateSet = new StateSet()) {
    this.#options = options;
    this.#states = states;
  }

  watch(disk: PowerLossDisk, facts: () => Facts): void {
    disk.beforeChange = (name, path) => this.#cut(disk, facts(), `change ${++this.#cutCount}, ${name} ${path}`);
  }

  #cut(disk: PowerLossDisk, facts: Facts, at: string): void {
    const { random, randomCuts, reorderedCuts = 0 } = this.#options;
    const byChance = (limit: number): number => Math.floor(random() * (limit + 1));
    const limits = disk.limits();
    const factsText = JSON.stringify(facts);
    const keep = (what: string, image: DiskImage, isReordered = false): void => {
      if (!this.#states.add(image, factsText)) return;
      this.remains.push({ image, facts, at: `${at}: ${what}`, isWhole: what === WHOLE, isReordered });
    };
    keep(WHOLE, disk.contents());
    keep('all is lost', disk.durable());
    for (let unit = 0; unit < limits.length; unit++) {
      keep(`${unit} of ${limits.length} is lost`, disk.survivors(eachBut(unit, (limit) => limit, 0)));
      keep(`${unit} of ${limits.length} is left`, disk.survivors(eachBut(unit, () => 0, limits[unit]!)));
    }
    if (limits.length === 0) return;
    for (let i = 0; i < randomCuts; i++) keep('by chance', disk.survivors(byChance));
    for (let i = 0; i < reorderedCuts; i++) {
      for (const bytes of SECTOR_BYTES) keep(`sectors of ${bytes}`, disk.survivors(byChance, bytes), true);
    }
  }
}

const WHOLE = 'nothing is lost';

/** Chooses `value` for the unit with a number, and for every other what `other` says. */
function eachBut(number: number, other: (limit: number) => number, value: number): (limit: number) => number {
  let unit = 0;
  return (limit) => (unit++ === number ? value : other(limit));
}

/** An engine over such a disk. */
export class DiskRig {
  readonly disk: PowerLossDisk;
  readonly logger: RecordingLogger = recordingLogger();
  readonly clock: ManualClock = new ManualClock(BASE_TIME);

  constructor(image?: DiskImage) {
    this.disk = new PowerLossDisk(BASE_TIME, image);
  }

  /** @param fileSystem what stands between the engine and the disk, if anything */
  open(fileSystem: FileSystem = this.disk): Promise<LocalEngine> {
    const { logger, clock } = this;
    return openLocalEngine({ dataDir: DATA_DIR, logger, clock, fileSystem, maxOpenFiles: 16, tailCacheBytes: 0 });
  }

  /** Another one on what the hardest cut leaves: nothing that was not synced. */
  cut(): DiskRig {
    return new DiskRig(this.disk.durable());
  }

  async filesOfLog(): Promise<readonly string[]> {
    return await this.disk.readdir(directoryOf(DATA_DIR, partition()));
  }

  messages(level: LogLine['level']): readonly string[] {
    return this.logger.messages(level);
  }
}

export const LOG_CONFIG: LogConfig = { ...SMALL, segmentBytes: 700, fileDeleteDelayMs: 1000 };
