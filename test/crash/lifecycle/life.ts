/** The life of one data directory through many kills: its topics, and what is known of them. */
import { nullable, string, type Topic, topic } from '../../../src/index.js';
import { History } from '../../history/history.js';
import { TailReader } from '../../history/recorded/reader.js';
import { nameInHeader, type RecordedTopic } from '../../history/recorded/topic.js';
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

interface Churn {
  made: number;
  state: 'gone' | 'creating' | 'there' | 'deleting';
}

export class Life {
  readonly history: History = new History();
  readonly tableRecorded: RecordedTopic<string, string | null> = {
    history: this.history,
    topic: table,
    partitionCount: TABLE_PARTITIONS,
    valueInHistory: nameInHeader,
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

  /** Of a topic with one partition, whose records are named by their values. */
  recorded(of: Topic<string, string>): RecordedTopic {
    return { history: this.history, topic: of, partitionCount: 1 };
  }

  /** The topic that was made last: to the history it is another one than those before. */
  get churnRecorded(): RecordedTopic {
    const topicInHistory = `churn ${this.churning.made}`;
    return { history: this.history, topic: churn, topicInHistory, partitionCount: CHURN_PARTITIONS };
  }
}
