/** A reader, from its start to its end. */
import { type Client, LogError, type ReadFrom, type ReadOptions } from '../../../src/index.js';
import type { Position, SeenRecord } from '../events.js';
import { NAME, PARTITIONS, type Setting, type TestRecord, type TestTopic, TOPICS } from './setting.js';

const MAX_RECORDS = 3_000;
const MAX_FOLLOWED_MS = 1_500;
/** How far back in time a reader may begin. */
const MAX_AGE_MS = 3_000;
/** About how much the broker sends at once: little, so that readers are often in the midst of something. */
const FETCH_BYTES = 4_096;

/** Begins where chance says and reads to the end, or follows for a while. */
export async function read(setting: Setting, process: string): Promise<void> {
  const { programme } = setting;
  await using client = await setting.connect();
  const topic = setting.pick(TOPICS);
  const signal = AbortSignal.any([setting.stopped, AbortSignal.timeout(1 + programme.below(MAX_FOLLOWED_MS))]);
  const options = { from: startOf(setting, topic), fetchBytes: FETCH_BYTES, signal };
  const session = new ReaderSession(setting, client, topic, process);
  try {
    if (programme.below(2) === 0) await session.readToEnd(options);
    else await session.follow(options, 1 + programme.below(MAX_RECORDS));
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    // A position that lies below the log start by now, or above what is durable yet; and the signal.
    if (error.reason !== 'OFFSET_OUT_OF_RANGE' && error.reason !== 'CANCELLED') throw error;
  }
}

/** Reads all of a topic, when nothing is sent any more. @returns how many offsets have no record */
export async function readAll(setting: Setting, topic: TestTopic, process: string): Promise<number> {
  await using client = await setting.connect();
  return await new ReaderSession(setting, client, topic, process).readToEnd({ from: 'earliest' });
}

function startOf(setting: Setting, topic: TestTopic): ReadFrom {
  const { programme } = setting;
  switch (programme.below(4)) {
    case 0:
      return 'earliest';
    case 1:
      return 'latest';
    case 2:
      return new Date(Date.now() - programme.below(MAX_AGE_MS));
    default:
      return Object.fromEntries(PARTITIONS.map((p) => [p, programme.below(setting.knownEnd(topic.name, p) + 1)]));
  }
}

type Start = ReadOptions & { readonly from: ReadFrom };

class ReaderSession {
  readonly #setting: Setting;
  readonly #client: Client;
  readonly #topic: TestTopic;
  readonly #process: string;
  #count = 0;

  constructor(setting: Setting, client: Client, topic: TestTopic, process: string) {
    this.#setting = setting;
    this.#client = client;
    this.#topic = topic;
    this.#process = process;
  }

  /** @returns how many offsets there are besides those of the records read */
  async readToEnd(options: Start): Promise<number> {
    const { history } = this.#setting;
    this.#assign(options.from);
    const ends = await this.#client.admin.listOffsets(this.#topic, 'latest');
    await this.#read({ ...options, to: 'end' }, Number.POSITIVE_INFINITY);
    for (const { partition, offset } of ends) history.end(this.#process, this.#at(partition, offset));
    return ends.reduce((sum, { offset }) => sum + offset, 0) - this.#count;
  }

  async follow(options: Start, limit: number): Promise<void> {
    this.#assign(options.from);
    await this.#read(options, limit);
  }

  /** Where a reader from "latest" or a time begins only its first record tells. */
  #assign(from: ReadFrom): void {
    const start = from === 'earliest' ? Object.fromEntries(PARTITIONS.map((partition) => [partition, 0])) : from;
    if (typeof start !== 'object' || start instanceof Date) return;
    const positions = Object.entries(start).map(([partition, offset]) => this.#at(Number(partition), offset));
    this.#setting.history.assign(this.#process, positions);
  }

  async #read(options: Start, limit: number): Promise<void> {
    const reader = this.#client.read(this.#topic, options);
    if (this.#setting.programme.below(2) === 0) {
      for await (const batch of reader.batches()) {
        this.#see(await batch.records());
        if (this.#count >= limit) return;
      }
      return;
    }
    for await (const record of reader) {
      this.#see([record]);
      if (this.#count >= limit) return;
    }
  }

  #see(records: readonly TestRecord[]): void {
    this.#setting.history.poll(this.#process, records.map(seen));
    this.#count += records.length;
  }

  #at(partition: number, offset: number): Position {
    return { topic: this.#topic.name, partition, offset };
  }
}

function seen({ topic, partition, offset, headers }: TestRecord): SeenRecord {
  const name = headers.find(({ key }) => key === NAME)?.value;
  return { topic, partition, offset, value: Buffer.from(name ?? []).toString() };
}
