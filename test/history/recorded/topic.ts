/** A topic whose producers and readers write down in a history what they do and see. */
import { LogError, type ReadRecord, type Topic } from '../../../src/index.js';
import type { Position } from '../events.js';
import type { History } from '../history.js';

export interface RecordedTopic<K = string, V = string> {
  readonly history: History;
  readonly topic: Topic<K, V>;
  readonly partitionCount: number;
  /** What the history calls the topic, where its name was that of other topics before. */
  readonly topicInHistory?: string;
  /** What the history calls the value of a record. Default: the text itself, without what fills it up. */
  readonly valueInHistory?: (record: ReadRecord<K, V>) => string;
}

export function topicInHistory<K, V>({ topic, topicInHistory: name }: RecordedTopic<K, V>): string {
  return name ?? topic.name;
}

export function positionIn<K, V>(recorded: RecordedTopic<K, V>, partition: number, offset: number): Position {
  return { topic: topicInHistory(recorded), partition, offset };
}

export function valueInHistory<K, V>(
  { valueInHistory: nameOf }: RecordedTopic<K, V>,
  record: ReadRecord<K, V>,
): string {
  return nameOf === undefined ? unfilled(String(record.value)) : nameOf(record);
}

const FILLER = '.';

/** A value as it is sent: in the history it goes without what fills it up. */
export function filled(value: string, bytes: number): string {
  return value.padEnd(bytes, FILLER);
}

function unfilled(value: string): string {
  const end = value.indexOf(FILLER);
  return end < 0 ? value : value.slice(0, end);
}

/** The header with what the history calls a value that cannot say so itself, such as that of a tombstone. */
export const NAME_HEADER = 'name';

/** For `valueInHistory`: what the header says. */
export function nameInHeader({ headers, partition, offset }: ReadRecord<unknown, unknown>): string {
  const name = headers.find(({ key }) => key === NAME_HEADER)?.value;
  if (name === undefined || name === null) throw new Error(`the record ${partition}/${offset} has no name`);
  return Buffer.from(name).toString('utf8');
}

/** Of a LogError; undefined of anything else. */
export function reasonOf(error: unknown): string | undefined {
  return error instanceof LogError ? error.reason : undefined;
}
