/**
 * What `__group_offsets` keeps: JSON texts in UTF-8, one record for each thing, the last record of a key in force.
 *
 *     offset  key    ["offset", group id, topic id, partition]
 *             value  {"v":1, "topic": name, "offset": next offset to read, "leaderEpoch": -1 when not known,
 *                     "metadata": text, "commitTimeMs": ms since the epoch, "order"?}
 *     pending key    ["pending", group id, producer id]
 *             value  {"v":1, "epoch": of the transaction's batches, "offsets": [{"topic", "topicId", "partition",
 *                     "offset", "leaderEpoch", "metadata", "order"}*]}
 *     group   key    ["group", group id]
 *             value  {"v":1, "epoch": n, "emptySinceMs": ms since the epoch, absent while it has members}
 *     topics  key    ["topics", group id]
 *             value  {"v":1, "topics": [[name, topic id, number of partitions when the group began with it]*]}
 *     member  key    ["member", group id, member id]
 *             value  {"v":1, "instanceId"?, "clientId", "host", "topics": names, "pattern"?, "assignor"?,
 *                     "sessionTimeoutMs", "rebalanceTimeoutMs", "epoch", "away",
 *                     "assigned": held*, "revoking": held*}
 *             held   {"topic": name, "topicId": uuid, "partitions": [[partition, since]*]}
 *                    in "revoking": [partition, since, revokedAt]
 *
 * A null value (tombstone) removes the thing. A record of another kind or of a newer version is of a later Tidelog: it is
 * left alone. Times and epochs are as `group-types.ts` has them.
 */
import * as v from 'valibot';
import { partitionKey, type TopicId, toTopicId } from '../../core/types.js';
import {
  encodeStateRecord,
  parseAs,
  parseStateKey,
  parseStateValue,
  type StateRecord,
  UNKNOWN_RECORD,
} from '../state-topic/state-record.js';
import type { StoredOffset } from './coordinator-types.js';
import type {
  BegunTopic,
  HeldPartition,
  MembershipRecord,
  RevokedPartition,
  StoredGroup,
  StoredMember,
} from './group-types.js';
import type { PendingChange } from './pending-offsets.js';

const VERSION = 1;

/** Where a committed offset belongs. */
export interface OffsetPlace {
  readonly topicId: TopicId;
  readonly partition: number;
}

/** A record as it was read; a `value` of undefined removes what there was. */
export type GroupRecord =
  | ({ readonly kind: 'pending'; readonly groupId: string } & PendingChange)
  | ({ readonly kind: 'offset'; readonly groupId: string; readonly value: StoredOffset | undefined } & OffsetPlace)
  | { readonly kind: 'group'; readonly groupId: string; readonly value: StoredGroup | undefined }
  | { readonly kind: 'topics'; readonly groupId: string; readonly value: readonly BegunTopic[] | undefined }
  | {
      readonly kind: 'member';
      readonly groupId: string;
      readonly memberId: string;
      readonly value: StoredMember | undefined;
    };

function record(key: readonly (string | number)[], value: object | undefined): StateRecord {
  return encodeStateRecord(VERSION, key, value);
}

export function encodeOffset(groupId: string, place: OffsetPlace, value: StoredOffset | undefined): StateRecord {
  return record(['offset', groupId, place.topicId, place.partition], value);
}

export function encodeMembership(groupId: string, change: MembershipRecord): StateRecord {
  if (change.kind === 'group') return record(['group', groupId], change.value);
  if (change.kind === 'topics') return record(['topics', groupId], change.value && storedTopics(change.value));
  const { memberId, value } = change;
  return record(['member', groupId, memberId], value === undefined ? undefined : storedMember(value));
}

export function encodePending(groupId: string, { producerId, value }: PendingChange): StateRecord {
  const stored = value && { epoch: value.producerEpoch, offsets: [...value.offsets.values()] };
  return record(['pending', groupId, producerId], stored);
}

function storedTopics(topics: readonly BegunTopic[]): object {
  return { topics: topics.map(({ name, id, partitionCount }) => [name, id, partitionCount]) };
}

function storedMember(member: StoredMember): object {
  const { subscription, assigned, revoking, instanceId, clientId, host, assignor, epoch, away } = member;
  const { sessionTimeoutMs, rebalanceTimeoutMs } = member;
  return {
    instanceId,
    clientId,
    host,
    topics: subscription.topics,
    pattern: subscription.pattern,
    assignor,
    sessionTimeoutMs,
    rebalanceTimeoutMs,
    epoch,
    away,
    assigned: byTopic(assigned, ({ partition, since }) => [partition, since]),
    revoking: byTopic(revoking, ({ partition, since, revokedAt }) => [partition, since, revokedAt]),
  };
}

interface TopicOfHeld {
  readonly topic: string;
  readonly topicId: string;
  readonly partitions: number[][];
}

/** Names and ids once for each topic: a member may hold thousands of partitions. */
function byTopic<T extends HeldPartition>(held: readonly T[], numbers: (one: T) => number[]): TopicOfHeld[] {
  const topics = new Map<string, TopicOfHeld>();
  for (const one of held) {
    const { topic, topicId } = one;
    const found = topics.get(topicId);
    if (found === undefined) topics.set(topicId, { topic, topicId, partitions: [numbers(one)] });
    else found.partitions.push(numbers(one));
  }
  return [...topics.values()];
}

const COUNTER = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const TOPIC_ID = v.pipe(v.string(), v.uuid(), v.transform(toTopicId));

const OFFSET_VALUE = v.object({
  topic: v.string(),
  offset: COUNTER,
  leaderEpoch: v.pipe(v.number(), v.integer()),
  metadata: v.string(),
  commitTimeMs: v.number(),
  order: v.optional(COUNTER),
});

const PENDING_VALUE = v.object({
  epoch: COUNTER,
  offsets: v.array(
    v.object({
      topic: v.string(),
      topicId: TOPIC_ID,
      partition: COUNTER,
      offset: COUNTER,
      leaderEpoch: v.pipe(v.number(), v.integer()),
      metadata: v.string(),
      order: COUNTER,
    }),
  ),
});

const TOPICS_VALUE = v.object({ topics: v.array(v.tuple([v.string(), TOPIC_ID, COUNTER])) });

const GROUP_VALUE = v.object({ epoch: COUNTER, emptySinceMs: v.optional(v.number()) });

const HELD = v.array(
  v.object({ topic: v.string(), topicId: TOPIC_ID, partitions: v.array(v.tuple([COUNTER, COUNTER])) }),
);
const REVOKING = v.array(
  v.object({ topic: v.string(), topicId: TOPIC_ID, partitions: v.array(v.tuple([COUNTER, COUNTER, COUNTER])) }),
);

const MEMBER_VALUE = v.object({
  instanceId: v.optional(v.string()),
  clientId: v.string(),
  host: v.string(),
  topics: v.array(v.string()),
  pattern: v.optional(v.string()),
  assignor: v.optional(v.picklist(['uniform', 'range'])),
  sessionTimeoutMs: COUNTER,
  rebalanceTimeoutMs: COUNTER,
  epoch: COUNTER,
  away: v.boolean(),
  assigned: HELD,
  revoking: REVOKING,
});

const OFFSET_KEY = v.tuple([v.literal('offset'), v.string(), TOPIC_ID, COUNTER]);
const PENDING_KEY = v.tuple([v.literal('pending'), v.string(), COUNTER]);
const GROUP_KEY = v.tuple([v.literal('group'), v.string()]);
const TOPICS_KEY = v.tuple([v.literal('topics'), v.string()]);
const MEMBER_KEY = v.tuple([v.literal('member'), v.string(), v.string()]);

type Kind = GroupRecord['kind'];
const KINDS: readonly Kind[] = ['offset', 'pending', 'group', 'topics', 'member'];

/**
 * Reads one record.
 * @throws Error saying what is wrong with a record that is of no Tidelog
 */
export function decodeRecord(key: Buffer, value: Buffer | null): GroupRecord | typeof UNKNOWN_RECORD {
  const { kind: name, parts } = parseStateKey(key);
  const kind = KINDS.find((known) => known === name);
  if (kind === undefined) return UNKNOWN_RECORD;
  const contents = parseStateValue(VERSION, value);
  if (contents === UNKNOWN_RECORD) return UNKNOWN_RECORD;
  if (kind === 'offset') return decodeOffset(parts, contents);
  if (kind === 'pending') return decodePending(parts, contents);
  if (kind === 'group') {
    const [, groupId] = parseAs(GROUP_KEY, parts);
    return { kind, groupId, value: contents === undefined ? undefined : decodeGroup(contents) };
  }
  if (kind === 'topics') {
    const [, groupId] = parseAs(TOPICS_KEY, parts);
    return { kind, groupId, value: contents === undefined ? undefined : decodeTopics(contents) };
  }
  const [, groupId, memberId] = parseAs(MEMBER_KEY, parts);
  return { kind, groupId, memberId, value: contents === undefined ? undefined : decodeMember(memberId, contents) };
}

function decodeOffset(parts: unknown, contents: unknown): GroupRecord {
  const [kind, groupId, topicId, partition] = parseAs(OFFSET_KEY, parts);
  return {
    kind,
    groupId,
    topicId,
    partition,
    value: contents === undefined ? undefined : parseAs(OFFSET_VALUE, contents),
  };
}

function decodePending(parts: unknown, contents: unknown): GroupRecord {
  const [kind, groupId, producerId] = parseAs(PENDING_KEY, parts);
  if (contents === undefined) return { kind, groupId, producerId, value: undefined };
  const { epoch, offsets } = parseAs(PENDING_VALUE, contents);
  const byPartition = new Map(offsets.map((offset) => [partitionKey(offset), offset]));
  return { kind, groupId, producerId, value: { producerEpoch: epoch, offsets: byPartition } };
}

function decodeGroup(contents: unknown): StoredGroup {
  const { epoch, emptySinceMs } = parseAs(GROUP_VALUE, contents);
  return { epoch, emptySinceMs };
}

function decodeTopics(contents: unknown): BegunTopic[] {
  return parseAs(TOPICS_VALUE, contents).topics.map(([name, id, partitionCount]) => ({ name, id, partitionCount }));
}

function decodeMember(memberId: string, contents: unknown): StoredMember {
  const { topics, pattern, assigned, revoking, instanceId, assignor, ...rest } = parseAs(MEMBER_VALUE, contents);
  return {
    ...rest,
    memberId,
    instanceId,
    assignor,
    subscription: { topics, pattern },
    assigned: assigned.flatMap(({ topic, topicId, partitions }) =>
      partitions.map(([partition, since]): HeldPartition => ({ topic, topicId, partition, since })),
    ),
    revoking: revoking.flatMap(({ topic, topicId, partitions }) =>
      partitions.map(([partition, since, revokedAt]): RevokedPartition => {
        return { topic, topicId, partition, since, revokedAt };
      }),
    ),
  };
}
