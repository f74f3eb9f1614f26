/** A reader, from its start to its end. */
import { type Client, LogError, type ReadFrom, type ReadOptions } from '../../../src/index.js';
import { RecordedReader, type Unit } from '../recorded/reader.js';
import { PARTITIONS, type Setting, type TestTopic, TOPICS } from './setting.js';

const MAX_RECORDS = 3_000;
const MAX_FOLLOWED_MS = 1_500;
/** How far back in time a reader may begin. */
const MAX_AGE_MS = 3_000;
/** About how much the broker sends at once: little, so that readers are often in the midst of something. */
const FETCH_BYTES = 4_096;
const UNITS: readonly Unit[] = ['batches', 'records'];

type TestReader = RecordedReader<string, string | null>;

/** Begins where chance says and reads to the end, or follows for a while. */
export async function read(setting: Setting, process: string): Promise<void> {
  const { programme } = setting;
  await using client = await setting.connect();
  const topic = setting.pick(TOPICS);
  const signal = AbortSignal.any([setting.stopped, AbortSignal.timeout(1 + programme.below(MAX_FOLLOWED_MS))]);
  const options = { fetchBytes: FETCH_BYTES, signal };
  const reader = new RecordedReader(setting.recorded(topic), process, startOf(setting, topic));
  try {
    if (programme.below(2) === 0) await reader.readToEnd(client, options, setting.pick(UNITS));
    else await follow(setting, reader, client, options);
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    // A position that lies below the log start by now, or above what is durable yet; and the signal.
    if (error.reason !== 'OFFSET_OUT_OF_RANGE' && error.reason !== 'CANCELLED') throw error;
  }
}

async function follow(setting: Setting, reader: TestReader, client: Client, options: ReadOptions): Promise<void> {
  let left = 1 + setting.programme.below(MAX_RECORDS);
  for await (const records of reader.read(client, options, setting.pick(UNITS))) {
    left -= records.length;
    if (left <= 0) return;
  }
}

/** Reads all of a topic, when nothing is sent any more. @returns how many offsets have no record */
export async function readAll(setting: Setting, topic: TestTopic, process: string): Promise<number> {
  await using client = await setting.connect();
  const reader = new RecordedReader(setting.recorded(topic), process);
  const records = await reader.readToEnd(client, {}, setting.pick(UNITS));
  return reader.positions.reduce((sum, next) => sum + next, 0) - records.length;
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
