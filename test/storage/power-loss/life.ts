/** The life of a data directory: everything that an engine does to its files, by chance, with all that it promises. */
import { encodeBatch } from '../../../src/batch/builder.js';
import { type Offset, type TopicPartition, toEpoch, toOffset } from '../../../src/core/types.js';
import type { PartitionLog } from '../../../src/storage/engine.js';
import type { LocalEngine } from '../../../src/storage/local/engine.js';
import { FaultyFileSystem } from '../../support/faulty-file-system.js';
import { optionsFor } from '../keyed.js';
import { DiskRig, LOG_CONFIG, type PowerCuts } from '../power-cuts.js';
import { BASE_TIME, batchAt, failureOf, partition } from '../support.js';
import { MetadataModel } from './metadata-model.js';

export interface LifeRecord {
  readonly offset: number;
  readonly key: string;
  readonly value: string | null;
}

/** What was promised when the power went. */
export interface Promised {
  /** Everything below is written, so that the end of the process cannot take it. */
  readonly written: number;
  /** Everything below is flushed. */
  readonly durable: number;
  /** What is being appended at `written`, perhaps to be refused. */
  readonly attempted: readonly LifeRecord[];
  /** The log starts here at least, and at most there. */
  readonly trimmed: number;
  readonly trimming: number;
  /** Compaction may have left holes below. */
  readonly compacting: number;
  /** The metadata as they may be: what was confirmed, with some of what is asked for or without. */
  readonly metadata: readonly string[];
  readonly second: Second;
  readonly snapshots: Snapshots;
  /** Whether the directory is being left in order, or was. */
  readonly closing: boolean;
}

/** By offset, what a side file may hold; null: there may be none. Above the end of the log there is none in any case. */
export type Snapshots = Readonly<Record<number, readonly (string | null)[]>>;

/** A second partition, which is removed. */
export interface Second {
  readonly durable: number;
  readonly written: number;
  readonly isAsked: boolean;
  readonly isRemoved: boolean;
}

type Step = (life: LifeOfALog) => Promise<void>;

const KEYS = 7;
export const SECOND: TopicPartition = partition(1);

export class LifeOfALog {
  /** Every record that was appended, by offset. */
  readonly history: LifeRecord[] = [];
  readonly #rig = new DiskRig();
  readonly #random: () => number;
  readonly #metadata = new MetadataModel();
  #promised: Promised = {
    written: 0,
    durable: 0,
    attempted: [],
    trimmed: 0,
    trimming: 0,
    compacting: 0,
    metadata: [this.#metadata.text()],
    second: { durable: 0, written: 0, isAsked: false, isRemoved: false },
    snapshots: {},
    closing: false,
  };
  #fs: FaultyFileSystem = new FaultyFileSystem(this.#rig.disk);
  #engine: LocalEngine | undefined;
  #log: PartitionLog | undefined;
  #epoch = 0;
  #count = 0;

  /** @param random in [0, 1) */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Several processes one after the other: some close the directory, others just end. Resolves when it is over. */
  async live(cuts: PowerCuts<Promised>): Promise<this> {
    cuts.watch(this.#rig.disk, () => this.#facts());
    await this.#start();
    await this.#work([
      APPEND,
      APPEND,
      APPEND,
      APPEND,
      COMPACT,
      SNAPSHOT,
      (life) => life.refuseSnapshot(),
      (life) => life.#fillSecond(),
    ]);
    await this.#end();
    await this.#start();
    await this.#work([
      APPEND,
      APPEND,
      APPEND,
      COMPACT,
      SNAPSHOT,
      (life) => life.removeSnapshot(),
      (life) => life.#removeSecond(),
    ]);
    await this.#end();
    await this.#start();
    await APPEND(this);
    await this.#close();
    return this;
  }

  #facts(): Promised {
    const durable = this.#log?.durableOffset ?? 0;
    return durable > this.#promised.durable ? { ...this.#promised, durable } : this.#promised;
  }

  #promise(promised: Partial<Promised>): void {
    this.#promised = { ...this.#facts(), ...promised };
  }

  /** Takes these steps and those that belong to every process, in any order. */
  async #work(more: readonly Step[]): Promise<void> {
    const left = [...ALWAYS, ...more];
    while (left.length > 0) {
      const [next] = left.splice(this.#below(left.length), 1);
      await next!(this);
    }
  }

  async #start(): Promise<void> {
    this.#fs = new FaultyFileSystem(this.#rig.disk);
    this.#engine = await this.#rig.open(this.#fs);
    this.#promise({ closing: false });
    this.#log = await this.#engine.open(partition(), toEpoch(++this.#epoch), LOG_CONFIG);
    if (this.#log.endOffset !== this.#promised.written) throw new Error('a start without a power cut lost something');
  }

  async #end(): Promise<void> {
    if (this.#random() < 0.5) await this.#close();
    else this.#kill();
  }

  async #close(): Promise<void> {
    this.#promise({ closing: true });
    await this.#engine!.close();
  }

  /** The process ends: nothing it was about to do reaches the disk. */
  #kill(): void {
    this.#fs.rule = () => 'EIO';
    this.#promise({});
    this.#log = undefined;
  }

  /** A few appends at once, some of them of several batches, perhaps flushed. */
  async append(): Promise<void> {
    const log = this.#log!;
    const attempted: LifeRecord[] = [];
    const calls = Array.from({ length: 1 + this.#below(3) }, () => this.#newBatches(1 + this.#below(3), attempted));
    this.#promise({ attempted });
    await Promise.all(calls.map(({ batches, at }) => log.append(batches, at)));
    this.history.push(...attempted);
    this.#promise({ written: log.endOffset, attempted: [] });
    if (this.#random() < 0.4) await log.flush(log.endOffset);
  }

  /** Appends that are refused for certain: at a wrong offset, and on a disk that is full in the middle of it. */
  async refuse(): Promise<void> {
    const log = this.#log!;
    await failureOf(log.append([batchAt(log.endOffset + 1)], toOffset(log.endOffset + 1)));
    const attempted: LifeRecord[] = [];
    const { batches, at } = this.#newBatches(4, attempted);
    this.#promise({ attempted });
    const { reason } = await this.#whileFull(/logs.*\.log$/, () => failureOf(log.append(batches, at)));
    if (reason !== 'STORAGE_FULL') throw new Error(`a full disk was answered with ${reason}`);
    this.#promise({ attempted: [] });
  }

  /** Runs work while one write of a few bytes to files with such names succeeds, and no second one. */
  async #whileFull<T>(files: RegExp, work: () => Promise<T>): Promise<T> {
    let writes = 0;
    this.#fs.maxWriteBytes = 60 + this.#below(200);
    this.#fs.rule = ({ name, path }) =>
      name === 'writevSync' && files.test(path) && ++writes > 1 ? 'ENOSPC' : undefined;
    try {
      return await work();
    } finally {
      this.#fs.rule = () => undefined;
      this.#fs.maxWriteBytes = Number.POSITIVE_INFINITY;
    }
  }

  async roll(): Promise<void> {
    await this.#log!.roll();
  }

  async compact(): Promise<void> {
    const maxMapBytes = this.#random() < 0.3 ? 1 : 1 << 20;
    const options = optionsFor(this.#log!, { nowMs: this.#rig.clock.now(), maxMapBytes });
    this.#promise({ compacting: options.upTo });
    await this.#log!.compact(options);
  }

  async trim(): Promise<void> {
    const log = this.#log!;
    const before = toOffset(log.startOffset + this.#below((log.endOffset - log.startOffset) >> 1));
    this.#promise({ trimming: Math.max(before, this.#promised.trimming) });
    await log.trim(before);
    this.#promise({ trimmed: Math.max(before, this.#promised.trimmed) });
  }

  /** Time enough to remove what is no longer needed and to write the recovery points. */
  async passTime(): Promise<void> {
    this.#rig.clock.advance(12_000);
  }

  /** A few changes at once, which share a sync. */
  async changeMetadata(): Promise<void> {
    const before = this.#metadata.text();
    const changes = ['a', 'b', 'c']
      .filter(() => this.#random() < 0.7)
      .map((key) => this.#metadata.change(key, this.#random() < 0.2 ? undefined : `value ${++this.#count}`));
    this.#promise({ metadata: [before, ...changes.map(({ after }) => after)] });
    const { metadata } = this.#engine!;
    await Promise.all(changes.map(({ key, value, version }) => metadata.compareAndSet(key, value, version)));
    this.#promise({ metadata: [this.#metadata.text()] });
  }

  async refuseMetadata(): Promise<void> {
    const before = this.#metadata.text();
    const { key, value, version, after } = this.#metadata.tryChange('d', `value ${++this.#count}`.repeat(60));
    this.#promise({ metadata: [before, after] });
    const { metadata } = this.#engine!;
    await this.#whileFull(/metadata\.log$/, () => failureOf(metadata.compareAndSet(key, value, version)));
    this.#promise({ metadata: [before] });
  }

  /** Writes a side file where the log ends, or in the place of another. */
  async writeSnapshot(): Promise<void> {
    const { sideFiles, endOffset } = this.#log!;
    const offset = this.#random() < 0.6 ? endOffset : this.#someSnapshot();
    const contents = `up to ${offset}, ${++this.#count}`.padEnd(80, '.');
    this.#promiseSnapshot(offset, [...this.#snapshotAt(offset), contents]);
    await sideFiles.write('snapshot', offset, Buffer.from(contents));
    this.#promiseSnapshot(offset, [contents]);
  }

  /** A removal may be undone by a power cut. */
  async removeSnapshot(): Promise<void> {
    const offset = this.#someSnapshot();
    this.#promiseSnapshot(offset, [...this.#snapshotAt(offset), null]);
    await this.#log!.sideFiles.remove('snapshot', offset);
  }

  async refuseSnapshot(): Promise<void> {
    const { sideFiles } = this.#log!;
    const contents = Buffer.alloc(500, 'refused');
    const { reason } = await this.#whileFull(/snapshot\.tmp$/, () =>
      failureOf(sideFiles.write('snapshot', this.#someSnapshot(), contents)),
    );
    if (reason !== 'STORAGE_FULL') throw new Error(`a full disk was answered with ${reason}`);
  }

  /** The offset of one that is there; where there is none, the end of the log. */
  #someSnapshot(): Offset {
    const { sideFiles, endOffset } = this.#log!;
    const offsets = sideFiles.offsets('snapshot');
    return offsets[this.#below(offsets.length)] ?? endOffset;
  }

  #snapshotAt(offset: number): readonly (string | null)[] {
    return this.#promised.snapshots[offset] ?? [null];
  }

  #promiseSnapshot(offset: number, contents: readonly (string | null)[]): void {
    this.#promise({ snapshots: { ...this.#promised.snapshots, [offset]: contents } });
  }

  async #fillSecond(): Promise<void> {
    const log = await this.#engine!.open(SECOND, toEpoch(this.#epoch), LOG_CONFIG);
    const note = (second: Partial<Second>): void => this.#promise({ second: { ...this.#promised.second, ...second } });
    for (const count of [1, 2]) {
      const from = log.endOffset;
      const batches = Array.from({ length: count }, (_, i) => batchAt(from + i, { bytes: 250 }));
      note({ written: from + count });
      await log.append(batches, from);
      await log.flush(log.endOffset);
      note({ durable: from + count });
    }
  }

  async #removeSecond(): Promise<void> {
    this.#promise({ second: { ...this.#promised.second, isAsked: true } });
    await this.#engine!.remove(SECOND);
    this.#promise({ second: { ...this.#promised.second, isRemoved: true } });
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  /** Batches behind those attempted already; what is in them is added to `attempted`. No two are alike. */
  #newBatches(count: number, attempted: LifeRecord[]): { readonly batches: Buffer[]; readonly at: Offset } {
    const at = toOffset(this.#log!.endOffset + attempted.length);
    const batches = Array.from({ length: count }, () => {
      const baseOffset = this.#log!.endOffset + attempted.length;
      const records = Array.from({ length: 1 + this.#below(3) }, (_, i) => this.#newRecord(baseOffset + i));
      attempted.push(...records);
      return encode(records);
    });
    return { batches, at };
  }

  #newRecord(offset: number): LifeRecord {
    const key = `key-${this.#below(KEYS)}`;
    return { offset, key, value: this.#random() < 0.1 ? null : `${offset}, ${++this.#count}`.padEnd(30, '.') };
  }
}

const APPEND: Step = (life) => life.append();
const COMPACT: Step = (life) => life.compact();
const SNAPSHOT: Step = (life) => life.writeSnapshot();
const ALWAYS: readonly Step[] = [
  APPEND,
  APPEND,
  (life) => life.refuse(),
  (life) => life.roll(),
  (life) => life.trim(),
  (life) => life.passTime(),
  (life) => life.changeMetadata(),
  (life) => life.refuseMetadata(),
  SNAPSHOT,
];

function encode(records: readonly LifeRecord[]): Buffer {
  const { offset } = records[0]!;
  const encoded = records.map(({ offset: at, key, value }) => {
    return { timestampMs: BASE_TIME + at, key: Buffer.from(key), value: value === null ? null : Buffer.from(value) };
  });
  return encodeBatch(encoded, { baseOffset: offset, leaderEpoch: 1 });
}
