/** Why a partition refuses a batch because of what it knows of the producer. */
import { baseSequenceOf, producerEpochOf, producerIdOf } from '../../batch/layout.js';
import { LogError } from '../../core/errors.js';
import type { OpenTransaction } from './types.js';

/** The partition that an error is about. */
export interface ProducerPlace {
  readonly topic: string;
  readonly partition: number;
}

function factsOf({ topic, partition }: ProducerPlace, batch: Buffer): Record<string, string | number> {
  return { topic, partition, producer_id: producerIdOf(batch, 0), producer_epoch: producerEpochOf(batch, 0) };
}

function whoOf({ topic, partition }: ProducerPlace, batch: Buffer): string {
  return `Producer ${producerIdOf(batch, 0)} with epoch ${producerEpochOf(batch, 0)} in ${topic}-${partition}`;
}

export function producerFenced(place: ProducerPlace, batch: Buffer, currentEpoch: number): LogError {
  return new LogError(
    'PRODUCER_FENCED',
    `${whoOf(place, batch)} is fenced: the producer's epoch is ${currentEpoch} by now. Nothing was appended.`,
    { metadata: { ...factsOf(place, batch), current_epoch: currentEpoch } },
  );
}

export function outOfOrderSequence(place: ProducerPlace, batch: Buffer, expected: number): LogError {
  const actual = baseSequenceOf(batch, 0);
  return new LogError(
    'OUT_OF_ORDER_SEQUENCE_NUMBER',
    `${whoOf(place, batch)} sent sequence ${actual} where ${expected} comes next: a batch is missing in between, or this ` +
      'one is older than what is remembered. Nothing was appended.',
    { metadata: { ...factsOf(place, batch), expected_sequence: expected, actual_sequence: actual } },
  );
}

export function outsideTransaction(place: ProducerPlace, batch: Buffer): LogError {
  return new LogError(
    'INVALID_TXN_STATE',
    `${whoOf(place, batch)} has an open transaction, and this batch is not transactional. Nothing was appended.`,
    { metadata: factsOf(place, batch) },
  );
}

export function otherEpochOpen(place: ProducerPlace, batch: Buffer, { producerEpoch }: OpenTransaction): LogError {
  return new LogError(
    'INVALID_TXN_STATE',
    `${whoOf(place, batch)} cannot begin a transaction: that of epoch ${producerEpoch} has not ended here. Nothing was ` +
      'appended.',
    { metadata: { ...factsOf(place, batch), open_epoch: producerEpoch } },
  );
}

export function tooManyProducers({ topic, partition }: ProducerPlace, limit: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `${topic}-${partition} cannot take a batch of another producer: ${limit} producers, all that producers.max allows, ` +
      'have open transactions. Try again later, or raise producers.max.',
    { metadata: { topic, partition, max_producers: limit } },
  );
}
