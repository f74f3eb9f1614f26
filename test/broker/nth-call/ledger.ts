/** What the users of a broker were told, so that it can be held against what the broker has. */
import type { LogError } from '../../../src/core/errors.js';
import type { Acks } from '../../../src/partition/partition.js';

/** A batch of one record that somebody sent. Its value stands in no other. */
export interface Sent {
  readonly topic: string;
  /** A topic that is created again is another. */
  readonly topicId: string;
  readonly partition: number;
  readonly key: string;
  readonly value: string;
  readonly acks: Acks;
  /** What the sender knows: `failed` is a definite failure. */
  state: 'unknown' | 'acknowledged' | 'failed';
  /** Of an acknowledged one. */
  offset: number;
  /** As appended, of an acknowledged one. */
  bytes: Buffer | undefined;
  /** Calls to the file system made when it was acknowledged. */
  atCall: number;
}

/** What is known of a topic. */
export interface KnownTopic {
  readonly name: string;
  id: string;
  /** `gone` and `there` are certain. */
  state: 'there' | 'gone' | 'unknown';
  readonly compacted: boolean;
  /** Undefined: nothing is deleted by itself. */
  readonly retentionRecords: number | undefined;
  /** Acknowledged; more may be there. */
  partitionCount: number;
  /** Values of `flush.ms` that may be in force: the last acknowledged one, and those whose update failed since. */
  flushMs: (string | undefined)[];
  /** By partition: offsets below may have been deleted, because that was asked for. */
  readonly deletable: Map<number, number>;
  /** By partition: everything below is deleted, as was acknowledged. */
  readonly deleted: Map<number, number>;
}

export class Ledger {
  readonly sent: Sent[] = [];
  readonly topics: Map<string, KnownTopic> = new Map();
  /** Failures that were told, in order. */
  readonly failures: { readonly what: string; readonly error: LogError }[] = [];

  topicsThere(): KnownTopic[] {
    return [...this.topics.values()].filter(({ state }) => state === 'there');
  }

  /** All that binds a broker. Of records that have the same place among all that were sent, the values are the same. */
  facts(): string {
    const sent = this.sent.map((one) => [one.topicId, one.partition, one.key, one.acks, one.state, one.offset]);
    const topics = [...this.topics.values()].map((one) => [one, [...one.deletable], [...one.deleted]]);
    return JSON.stringify([sent, topics]);
  }

  /** A power cut may have taken what was acknowledged before it was durable. */
  forgetWritten(): void {
    for (const sent of this.sent) if (sent.acks === 'written') sent.state = 'unknown';
  }

  /** Calls to the file system are counted from here. */
  beginAnew(): void {
    for (const sent of this.sent) sent.atCall = 0;
  }

  sentTo(topic: string, partition: number): Sent[] {
    const id = this.topics.get(topic)?.id;
    return this.sent.filter((sent) => sent.topicId === id && sent.partition === partition);
  }
}
