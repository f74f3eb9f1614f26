/** What is wrong with the topic that a caller names. */
import { LogError } from '../core/errors.js';
import { isInternal } from './topic-name.js';

/** Names and ids that a caller made up may be of any length. */
function clip(text: string): string {
  return text.slice(0, 300);
}

export function alreadyExists(name: string): LogError {
  return new LogError('TOPIC_ALREADY_EXISTS', `Topic ${name} exists already.`, { metadata: { topic: name } });
}

export function unknownTopic(name: string): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `There is no topic ${JSON.stringify(clip(name))}. Create it first: tidelog topic create NAME --partitions N.`,
    { metadata: { topic: clip(name) } },
  );
}

export function unknownPartition(name: string, index: number, partitionCount: number): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_OR_PARTITION',
    `Topic ${name} has partitions 0 to ${partitionCount - 1}, no partition ${index}.`,
    { metadata: { topic: name, partition: index, partition_count: partitionCount } },
  );
}

/** The caller knows an earlier topic of the name. */
export function recreatedTopic(
  { name, id }: { readonly name: string; readonly id: string },
  topicId: string,
): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${name} was deleted and created anew: its id is ${id}, not ${clip(topicId)}. ` +
      'Offsets of the old topic mean nothing here.',
    { metadata: { topic: name, topic_id: id, requested_topic_id: clip(topicId) } },
  );
}

/** The caller knows a topic, and nothing has its name any more. */
export function deletedTopic(name: string, topicId: string): LogError {
  return new LogError(
    'UNKNOWN_TOPIC_ID',
    `Topic ${JSON.stringify(clip(name))} with the id ${JSON.stringify(clip(topicId))} is not there: it was deleted.`,
    { metadata: { topic: clip(name), requested_topic_id: clip(topicId) } },
  );
}

/**
 * @param what that is refused: `deleted`
 * @throws LogError INVALID_TOPIC for a topic that Tidelog keeps for itself
 */
export function refuseInternal(name: string, what: string): void {
  if (!isInternal(name)) return;
  throw new LogError('INVALID_TOPIC', `${JSON.stringify(clip(name))} is an internal topic and cannot be ${what}.`, {
    metadata: { topic: clip(name) },
  });
}

/** The deletion is decided and durable, but its last step has failed so far. */
export function deletionGoesOn(name: string, cause: LogError): LogError {
  return new LogError(
    cause.reason,
    `Topic ${name} is deleted, but its name is not free yet; that is tried again. ${cause.message}`,
    { cause, metadata: { ...cause.metadata, topic: name }, outcome: 'unknown' },
  );
}
