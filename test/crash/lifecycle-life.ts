/** The life of one data directory through many kills: its topics, and what is known of them. */
import { nullable, type ReadRecord, string, type Topic, topic } from '../../src/index.js';
import { History } from '../history/history.js';
import { type Recorded, TailReader } from '../history/recorded-clients.js';
import { Table } from './table.js';

export const TABLE_PARTITIONS = 2;
export const CHURN_PARTITIONS = 2;

/** Compacted. Its records name themselves in a header, because a tombstone has no value. */
export const table: Topic<string, string | null> = topic('table', { key: string(), value: nullable(string()) });
/** Trimmed by size. */
export const events: Topic<string, string> = topic('events', { value: string() });
/** Trimmed on demand. */
export const trimmed: Topic<string, string> = topic('trimmed', { value: string() });
/** Made and deleted all the time; records say of which making they are. */
export const churn: Topic<string, string> = topic('churn', { value: string() });

export const NAME_HEADER = 'name';

export type TableRecord = ReadRecord<string, string | null>;

interface Churn {
  made: number;
  state: 'gone' | 'creating' | 'there' | 'deleting';
}

export class Life {
  readonly history: History = new History();
  readonly tableRecorded: Recorded<string, string | null> = {
    history: this.history,
    topic: table,
    partitionCount: TABLE_PARTITIONS,
    valueInHistory: nameOf,
  };
  readonly expectedTable: Table = new Table();
  /** Log start offsets that deleting records was asked for last, and that was acknowledged. */
  readonly trimming = { asked: 0, acknowledged: 0 };
  readonly churning: Churn = { made: 0, state: 'gone' };
  /** By partition of the table: the offsets that the follower was shown. */
  readonly shown: readonly Set<number>[] = Array.from({ length: TABLE_PARTITIONS }, () => new Set<number>());
  readonly follower: TailReader<string, string | null> = new TailReader(
    this.tableRecorded,
    'follower',
    ({ partition, offset }) => void this.shown[partition]?.add(offset),
  );
  /** The log start offset of the events when last looked at. */
  eventStart = 0;
  /** Whether the broker of the round was killed: the load ends. */
  killed = false;
  round = 0;
  compactions = 0;
  retentions = 0;
  tombstonesRemoved = 0;
  #sequence = 0;

  nextSequence(): number {
    return ++this.#sequence;
  }

  /** What the history calls the topic that was made last. */
  get churnInHistory(): string {
    return `churn ${this.churning.made}`;
  }
}

function nameOf({ headers, partition, offset }: TableRecord): string {
  const name = headers.find(({ key }) => key === NAME_HEADER)?.value;
  if (name === undefined || name === null) throw new Error(`the record ${partition}/${offset} has no name`);
  return Buffer.from(name).toString('utf8');
}
