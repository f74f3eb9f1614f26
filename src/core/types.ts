/**
 * Branded number and string types. A brand costs nothing at run time; it stops a partition number from being
 * passed where an offset belongs.
 */
import { LogError } from './errors.js';

declare const brand: unique symbol;

/** Position of a record in its partition: a safe integer >= 0. 2^53 lasts 285 years at a million records a second. */
export type Offset = number & { readonly [brand]: 'Offset' };

/** Fencing token of whoever opened a partition: a safe integer >= 0, higher wins. */
export type Epoch = number & { readonly [brand]: 'Epoch' };

/** Identity of a topic for its whole life, a lower-case UUID. A recreated topic of the same name has a new one. */
export type TopicId = string & { readonly [brand]: 'TopicId' };

/** A partition as storage knows it: by the topic's id, never by its name. */
export interface TopicPartition {
  readonly topicId: TopicId;
  readonly partition: number;
}

/** @throws LogError INVALID_REQUEST unless `value` is a safe integer >= 0 */
export function toOffset(value: number): Offset {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new LogError('INVALID_REQUEST', `An offset is a whole number from 0 to 2^53-1, not ${value}.`);
  }
  return value as Offset;
}

/** @throws LogError INVALID_REQUEST unless `value` is a safe integer >= 0 */
export function toEpoch(value: number): Epoch {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new LogError('INVALID_REQUEST', `An epoch is a whole number from 0 to 2^53-1, not ${value}.`);
  }
  return value as Epoch;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** @throws LogError INVALID_REQUEST unless `value` is a lower-case UUID */
export function toTopicId(value: string): TopicId {
  if (!UUID.test(value)) {
    throw new LogError('INVALID_REQUEST', `A topic id is a lower-case UUID, not ${JSON.stringify(value)}.`);
  }
  return value as TopicId;
}

/** Key of a partition in maps and directory names: `<topic id>-<partition>`. */
export function partitionKey(id: TopicPartition): string {
  return `${id.topicId}-${id.partition}`;
}
