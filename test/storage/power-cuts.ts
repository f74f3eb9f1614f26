/** Runs work on a disk that is cut off the power before each of its changes, and hands out what may be left. */
import { crc32c } from '../../src/batch/crc32c.js';
import type { LogConfig } from '../../src/storage/engine.js';
import { type LocalEngine, openLocalEngine } from '../../src/storage/local/engine.js';
import { ManualClock } from '../support/manual-clock.js';
import { type DiskImage, PowerLossDisk } from '../support/power-loss-disk.js';
import { SMALL } from './keyed.js';
import { BASE_TIME, directoryOf, type LogLine, partition, type RecordingLogger, recordingLogger } from './support.js';

export const DATA_DIR = '/data';

/** What a cut has left, and what was promised by then. */
export interface Remains<Facts> {
  readonly image: DiskImage;
  readonly facts: Facts;
  /** Names the cut, for messages. */
  readonly at: string;
}

/** Collects what may be left at each change, each different image once. */
export class PowerCuts<Facts> {
  readonly remains: Remains<Facts>[] = [];
  readonly #seen = new Set<string>();
  readonly #random: () => number;
  readonly #randomCuts: number;
  #cutCount = 0;

  /** @param randomCuts images by chance for each change, besides the regular ones */
  constructor(random: () => number, randomCuts: number) {
    this.#random = random;
    this.#randomCuts = randomCuts;
  }

  watch(disk: PowerLossDisk, facts: () => Facts): void {
    disk.beforeChange = (name, path) => this.#cut(disk, facts(), `change ${++this.#cutCount}, ${name} ${path}`);
  }

  #cut(disk: PowerLossDisk, facts: Facts, at: string): void {
    const limits = disk.limits();
    this.#keep(disk, facts, `${at}: nothing is lost`, (limit) => limit);
    this.#keep(disk, facts, `${at}: all is lost`, () => 0);
    for (let unit = 0; unit < limits.length; unit++) {
      this.#keep(disk, facts, `${at}: ${unit} of ${limits.length} is lost`, (limit, n) => (n === unit ? 0 : limit));
      this.#keep(disk, facts, `${at}: ${unit} of ${limits.length} is left`, (limit, n) => (n === unit ? limit : 0));
    }
    for (let i = 0; i < this.#randomCuts; i++) {
      this.#keep(disk, facts, `${at}: by chance`, (limit) => Math.floor(this.#random() * (limit + 1)));
    }
  }

  #keep(disk: PowerLossDisk, facts: Facts, at: string, choose: (limit: number, unit: number) => number): void {
    let unit = 0;
    const image = disk.survivors((limit) => choose(limit, unit++));
    const files = [...image].map(([path, contents]) => `${path} ${contents.length} ${crc32c(contents)}`).sort();
    const key = JSON.stringify([facts, files]);
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.remains.push({ image, facts, at });
  }
}

/** An engine over such a disk. */
export class DiskRig {
  readonly disk: PowerLossDisk;
  readonly logger: RecordingLogger = recordingLogger();
  readonly clock: ManualClock = new ManualClock(BASE_TIME);

  constructor(image?: DiskImage) {
    this.disk = new PowerLossDisk(BASE_TIME, image);
  }

  open(): Promise<LocalEngine> {
    const { logger, clock, disk } = this;
    // Room for more handles would take longer to set up than all the rest, in tests that open it ten thousand times.
    const limits = { tailCacheBytes: 0, maxOpenFiles: 32 };
    return openLocalEngine({ dataDir: DATA_DIR, logger, clock, fileSystem: disk, ...limits });
  }

  /** Another one on what the hardest cut leaves: nothing that was not synced. */
  cut(): DiskRig {
    return new DiskRig(this.disk.survivors(() => 0));
  }

  async filesOfLog(): Promise<readonly string[]> {
    return await this.disk.readdir(directoryOf(DATA_DIR, partition()));
  }

  messages(level: LogLine['level']): readonly string[] {
    return this.logger.lines.filter((line) => line.level === level).map((line) => line.message);
  }
}

export const LOG_CONFIG: LogConfig = { ...SMALL, segmentBytes: 700, fileDeleteDelayMs: 1000 };
