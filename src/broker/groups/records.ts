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

/** A record to write: its key and, unless it is a tombstone, its value. */
export interface EncodedRecord {
  readonly key: Buffer;
  readonly value: Buffer | null;
}

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

function record(key: readonly (string | number)[], value: object | undefined): EncodedRecord {
  return {
    key: Buffer.from(JSON.stringify(key)),
    value: value === undefined ? null : Buffer.from(JSON.stringify({ v: VERSION, ...value })),
  };
}

export function encodeOffset(groupId: string, place: OffsetPlace, value: StoredOffset | undefined): EncodedRecord {
  return record(['offset', groupId, place.topicId, place.partition], value);
}

export function encodeMembership(groupId: string, change: MembershipRecord): EncodedRecord {
  if (change.kind === 'group') return record(['group', groupId], change.value);
  if (change.kind === 'topics') return record(['topics', groupId], change.value && storedTopics(change.value));
  const { memberId, value } = change;
  return record(['member', groupId, memberId], value === undefined ? undefined : storedMember(value));
}

export function encodePending(groupId: string, { producerId, value }: PendingChange): EncodedRecord {
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

/** Of a later Tidelog. */
export const UNKNOWN_RECORD = 'unknown';

/**
 * Reads one record.
 * @throws Error saying what is wrong with a record that is of no Tidelog
 */
export function decodeRecord(key: Buffer, value: Buffer | null): GroupRecord | typeof UNKNOWN_RECORD {
  const parts = parseJson('key', key);
  const name = Array.isArray(parts) ? parts[0] : undefined;
  if (typeof name !== 'string') throw new Error(`its key is ${key.toString('utf8').slice(0, 300)}`);
  const kind = KINDS.find((known) => known === name);
  if (kind === undefined) return UNKNOWN_RECORD;
  const contents = value === null ? undefined : parseJson('value', value);
  if (contents !== undefined && isNewer(contents)) return UNKNOWN_RECORD;
  if (kind === 'offset') return decodeOffset(parts, contents);
  if (kind === 'pending') return decodePending(parts, contents);
  if (kind === 'group') {
    const [, groupId] = parse(GROUP_KEY, parts);
    return { kind, groupId, value: contents === undefined ? undefined : decodeGroup(contents) };
  }
  if (kind === 'topics') {
    const [, groupId] = parse(TOPICS_KEY, parts);
    return { kind, groupId, value: contents === undefined ? undefined : decodeTopics(contents) };
  }
  const [, groupId, memberId] = parse(MEMBER_KEY, parts);
  return { kind, groupId, memberId, value: contents === undefined ? undefined : decodeMember(memberId, contents) };
}

function parseJson(what: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new Error(`its ${what} is not JSON`);
  }
}

function isNewer(contents: unknown): boolean {
  const version = typeof contents === 'object' && contents !== null && 'v' in contents ? contents.v : undefined;
  if (typeof version !== 'number') throw new Error('its value names no version');
  return version > VERSION;
}

function parse<T>(schema: v.GenericSchema<unknown, T>, input: unknown): T {
  const parsed = v.safeParse(schema, input, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new Error(`${v.getDotPath(issue) ?? 'it'}: ${issue.message}`);
}

function decodeOffset(parts: unknown, contents: unknown): GroupRecord {
  const [kind, groupId, topicId, partition] = parse(OFFSET_KEY, parts);
  return {
    kind,
    groupId,
    topicId,
    partition,
    value: contents === undefined ? undefined : parse(OFFSET_VALUE, contents),
  };
}

function decodePending(parts: unknown, contents: unknown): GroupRecord {
  const [kind, groupId, producerId] = parse(PENDING_KEY, parts);
  if (contents === undefined) return { kind, groupId, producerId, value: undefined };
  const { epoch, offsets } = parse(PENDING_VALUE, contents);
  const byPartition = new Map(offsets.map((offset) => [partitionKey(offset), offset]));
  return { kind, groupId, producerId, value: { producerEpoch: epoch, offsets: byPartition } };
}

function decodeGroup(contents: unknown): StoredGroup {
  const { epoch, emptySinceMs } = parse(GROUP_VALUE, contents);
  return { epoch, emptySinceMs };
}

function decodeTopics(contents: unknown): BegunTopic[] {
  return parse(TOPICS_VALUE, contents).topics.map(([name, id, partitionCount]) => ({ name, id, partitionCount }));
}

function decodeMember(memberId: string, contents: unknown): StoredMember {
  const { topics, pattern, assigned, revoking, instanceId, assignor, ...rest } = parse(MEMBER_VALUE, contents);
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
