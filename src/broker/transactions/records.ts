/**
 * What `__transaction_state` keeps: JSON texts in UTF-8, one record for each transactional id, the last one in force.
 *
 *     transaction  key    ["transaction", transactional id]
 *                  value  {"v":1, "status": "empty" | "prepare-commit" | "prepare-abort" | "complete-commit" |
 *                          "complete-abort", "identity": identity, "previous"?: identity, "next"?: identity,
 *                          "cause"?: "producer" | "takeover" | "timeout" | "administrator" | "restart", "timeoutMs",
 *                          "startMs"?, "updateMs", "topics": [[name, topic id, [partition*]]*], "groups": [group id*],
 *                          "suspect"?: true}
 *                  identity  [producer id, producer epoch]
 *
 * A null value (tombstone) removes the transactional id. A record of another kind or of a newer version is of a later
 * Tidelog: it is left alone. What each means: see `StoredTransaction`. "next" is there while a transaction is decided and
 * not completed, and only then.
 */
import * as v from 'valibot';
import { toTopicId } from '../../core/types.js';
import {
  encodeStateRecord,
  parseAs,
  parseStateKey,
  parseStateValue,
  type StateRecord,
  UNKNOWN_RECORD,
} from '../state-topic/state-record.js';
import type { ProducerIdentity, TransactionPartition } from './coordinator-types.js';
import type { StoredTransaction } from './transaction-types.js';

const VERSION = 1;
const KIND = 'transaction';

/** A record as it was read; a `value` of undefined removes what there was. */
export interface TransactionRecord {
  readonly transactionalId: string;
  readonly value: StoredTransaction | undefined;
}

/** @param value undefined: a tombstone */
export function encodeTransaction(transactionalId: string, value: StoredTransaction | undefined): StateRecord {
  return encodeStateRecord(VERSION, [KIND, transactionalId], value && storedValue(value));
}

function storedValue(transaction: StoredTransaction): object {
  const { identity, previous, next, partitions, groupIds, ...rest } = transaction;
  return {
    ...rest,
    identity: pairOf(identity),
    previous: previous && pairOf(previous),
    next: next && pairOf(next),
    topics: byTopic(partitions),
    groups: groupIds,
  };
}

function pairOf({ producerId, producerEpoch }: ProducerIdentity): readonly [number, number] {
  return [producerId, producerEpoch];
}

/** A topic's name once, for all its partitions. */
function byTopic(partitions: readonly TransactionPartition[]): readonly (readonly [string, string, number[]])[] {
  const topics = new Map<string, [string, string, number[]]>();
  for (const { topic, topicId, partition } of partitions) {
    const known = topics.get(topicId);
    if (known === undefined) topics.set(topicId, [topic, topicId, [partition]]);
    else known[2].push(partition);
  }
  return [...topics.values()];
}

const COUNTER = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const EPOCH = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(32_767));
const IDENTITY = v.pipe(
  v.tuple([COUNTER, EPOCH]),
  v.transform(([producerId, producerEpoch]): ProducerIdentity => ({ producerId, producerEpoch })),
);
const TOPIC_ID = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    try {
      return toTopicId(dataset.value);
    } catch {
      addIssue({ message: 'is not a topic id' });
      return NEVER;
    }
  }),
);
const STATUS = v.picklist(['empty', 'prepare-commit', 'prepare-abort', 'complete-commit', 'complete-abort']);
const CAUSE = v.picklist(['producer', 'takeover', 'timeout', 'administrator', 'restart']);

const VALUE = v.pipe(
  v.object({
    status: STATUS,
    identity: IDENTITY,
    previous: v.optional(IDENTITY),
    next: v.optional(IDENTITY),
    cause: v.optional(CAUSE),
    timeoutMs: COUNTER,
    startMs: v.optional(v.number()),
    updateMs: v.number(),
    topics: v.array(v.tuple([v.string(), TOPIC_ID, v.array(COUNTER)])),
    groups: v.array(v.string()),
    suspect: v.optional(v.boolean()),
  }),
  v.check(
    ({ status, next }) => status.startsWith('prepare') === (next !== undefined),
    'next goes with a decided transaction',
  ),
);

const KEY = v.tuple([v.literal(KIND), v.string()]);

/**
 * Reads one record.
 * @throws Error saying what is wrong with a record that is of no Tidelog
 */
export function decodeTransaction(key: Buffer, value: Buffer | null): TransactionRecord | typeof UNKNOWN_RECORD {
  const { kind, parts } = parseStateKey(key);
  if (kind !== KIND) return UNKNOWN_RECORD;
  const contents = parseStateValue(VERSION, value);
  if (contents === UNKNOWN_RECORD) return UNKNOWN_RECORD;
  const [, transactionalId] = parseAs(KEY, parts);
  return { transactionalId, value: contents === undefined ? undefined : decodeValue(contents) };
}

function decodeValue(contents: unknown): StoredTransaction {
  const { status, identity, previous, next, cause, timeoutMs, startMs, updateMs, topics, groups, suspect } = parseAs(
    VALUE,
    contents,
  );
  const partitions = topics.flatMap(([topic, topicId, numbers]) =>
    numbers.map((partition): TransactionPartition => ({ topic, topicId, partition })),
  );
  return {
    status,
    identity,
    previous,
    next,
    cause,
    timeoutMs,
    startMs,
    updateMs,
    partitions,
    groupIds: groups,
    suspect,
  };
}
