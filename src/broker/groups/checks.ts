/** Whether what a caller sends is well formed, before anything is looked up. */
import { LogError } from '../../core/errors.js';
import { refuseInternal } from '../topic-errors.js';
import { checkTopicName } from '../topic-name.js';
import type { FetchOffsetsCommand, JoinCommand, OffsetToCommit } from './coordinator-types.js';
import type { GroupConfig } from './group-config.js';
import type { AssignorName, Subscription } from './group-types.js';

const MAX_GROUP_ID = 249;
const MAX_MEMBER_ID = 100;
const MAX_INSTANCE_ID = 249;
const MAX_CLIENT_ID = 255;
const MAX_TOPICS = 1000;
/** Characters of all names of a subscription together: each member keeps its own. */
const MAX_TOPICS_TEXT = 16 * 1024;
const MAX_PATTERN = 256;
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** Partitions in one commit, or asked for by name. */
const MAX_PARTITIONS = 10_000;

/** A control character of Unicode. */
const CONTROL = /\p{Cc}/u;

/** @throws LogError INVALID_GROUP_ID */
export function checkGroupId(groupId: string): void {
  if (isName(groupId, MAX_GROUP_ID)) return;
  throw new LogError(
    'INVALID_GROUP_ID',
    `${shown(groupId)} is not a group id: use 1 to ${MAX_GROUP_ID} characters, none of them a control character.`,
    { metadata: { group_id: groupId.slice(0, MAX_GROUP_ID) } },
  );
}

function isName(text: string, maxLength: number): boolean {
  return text.length >= 1 && text.length <= maxLength && !CONTROL.test(text);
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, 300));
}

function invalid(message: string): LogError {
  return new LogError('INVALID_REQUEST', message);
}

/** @throws LogError INVALID_REQUEST */
export function checkMemberId(memberId: string): void {
  if (isName(memberId, MAX_MEMBER_ID)) return;
  throw invalid(`${shown(memberId)} is not a member id: use 1 to ${MAX_MEMBER_ID} characters, such as a UUID.`);
}

/** The epoch and the sequence that a member names. @throws LogError INVALID_REQUEST */
export function checkCounter(what: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 0) return;
  throw invalid(`${what} is a whole number from 0 to 2^53-1, not ${value}.`);
}

/**
 * @returns the subscription with each name once, in order
 * @throws LogError INVALID_REQUEST, INVALID_TOPIC, INVALID_REGULAR_EXPRESSION
 */
export function checkSubscription({ topics, pattern }: Subscription): Subscription {
  if (pattern !== undefined && topics.length > 0) {
    throw invalid('A subscription names topics or has a pattern, not both.');
  }
  if (topics.length > MAX_TOPICS) {
    throw invalid(`A subscription names at most ${MAX_TOPICS} topics, not ${topics.length}: use a pattern.`);
  }
  const textLength = topics.reduce((sum, { length }) => sum + length, 0);
  if (textLength > MAX_TOPICS_TEXT) {
    throw invalid(`The names of a subscription have at most ${MAX_TOPICS_TEXT} characters together: use a pattern.`);
  }
  if (pattern !== undefined && pattern.length > MAX_PATTERN) {
    throw new LogError(
      'INVALID_REGULAR_EXPRESSION',
      `A topic pattern has at most ${MAX_PATTERN} characters, not ${pattern.length}.`,
    );
  }
  for (const topic of topics) {
    checkTopicName(topic);
    refuseInternal(topic, 'subscribed to');
  }
  return { topics: [...new Set(topics)].sort(), pattern };
}

/** What of a join is the member's own, with the broker's defaults where it names nothing. */
export type JoiningMember = Pick<JoinCommand, 'memberId' | 'instanceId' | 'clientId' | 'host' | 'subscription'> & {
  readonly assignor: AssignorName | undefined;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
};

/**
 * @throws LogError INVALID_GROUP_ID, INVALID_REQUEST, INVALID_TOPIC, INVALID_REGULAR_EXPRESSION, UNSUPPORTED_ASSIGNOR,
 *   INVALID_SESSION_TIMEOUT
 */
export function checkJoin(command: JoinCommand, config: GroupConfig): JoiningMember {
  const { memberId, instanceId, clientId, host, subscription } = command;
  checkGroupId(command.groupId);
  checkMemberId(memberId);
  if (instanceId !== undefined && !isName(instanceId, MAX_INSTANCE_ID)) {
    throw invalid(`${shown(instanceId)} is not an instance id: use 1 to ${MAX_INSTANCE_ID} characters.`);
  }
  return {
    memberId,
    instanceId,
    clientId: clientId.slice(0, MAX_CLIENT_ID),
    host: host.slice(0, MAX_CLIENT_ID),
    subscription: checkSubscription(subscription),
    assignor: checkAssignor(command.assignor),
    sessionTimeoutMs: checkSessionTimeout(command.sessionTimeoutMs, config),
    rebalanceTimeoutMs: checkRebalanceTimeout(command.rebalanceTimeoutMs, config),
  };
}

function checkAssignor(name: string): AssignorName | undefined {
  if (name === '') return undefined;
  if (name === 'uniform' || name === 'range') return name;
  throw new LogError('UNSUPPORTED_ASSIGNOR', `There is no assignor ${shown(name)}: use uniform or range.`, {
    metadata: { assignor: name.slice(0, 300), valid: 'uniform, range' },
  });
}

function checkSessionTimeout(given: number, config: GroupConfig): number {
  if (given === 0) return config.sessionTimeoutMs;
  const { minSessionTimeoutMs: min, maxSessionTimeoutMs: max } = config;
  if (Number.isInteger(given) && given >= min && given <= max) return given;
  throw new LogError(
    'INVALID_SESSION_TIMEOUT',
    `A session lasts ${min} to ${max} ms on this broker, not ${given} (group.min.session.timeout.ms, ` +
      'group.max.session.timeout.ms).',
    { metadata: { session_timeout_ms: given, min_ms: min, max_ms: max } },
  );
}

function checkRebalanceTimeout(given: number, config: GroupConfig): number {
  if (given === 0) return config.rebalanceTimeoutMs;
  if (Number.isInteger(given) && given > 0 && given <= MAX_TIMEOUT_MS) return given;
  throw invalid(`rebalance_timeout_ms is 1 to ${MAX_TIMEOUT_MS}, or 0 for the broker's default, not ${given}.`);
}

/** What of a commit does not depend on the partitions. @throws LogError INVALID_REQUEST */
export function checkOffsets(offsets: readonly OffsetToCommit[]): void {
  if (offsets.length > MAX_PARTITIONS) {
    throw invalid(`One commit takes at most ${MAX_PARTITIONS} partitions, not ${offsets.length}.`);
  }
  for (const { offset, leaderEpoch } of offsets) {
    checkCounter('A committed offset', offset);
    if (!Number.isInteger(leaderEpoch) || leaderEpoch < -1) throw invalid(`${leaderEpoch} is not a leader epoch.`);
  }
}

/** @throws LogError INVALID_REQUEST */
export function checkPartitions(asked: FetchOffsetsCommand['topics']): void {
  const count = asked.reduce((sum, { partitions }) => sum + partitions.length, 0);
  if (count <= MAX_PARTITIONS && asked.length <= MAX_PARTITIONS) return;
  throw invalid(
    `One request names at most ${MAX_PARTITIONS} partitions and as many topics, not ${count} of ${asked.length}; ` +
      'none for all that was committed.',
  );
}
