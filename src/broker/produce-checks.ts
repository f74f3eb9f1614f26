/** Whether the parts of a produce request go together: what the partition alone cannot judge. */
import { attributesOf, isTransactional, producerEpochOf, producerIdOf } from '../batch/layout.js';
import { LogError } from '../core/errors.js';
import { MESSAGE_ID_HEADER } from '../partition/message-ids/identified-records.js';
import type { ProduceCommand } from './produce.js';
import type { TransactionalProducer } from './transactions/coordinator-types.js';

const MAX_MESSAGE_ID = 256;
/** In one request: some milliseconds of work. */
const MAX_MESSAGE_IDS = 10_000;
/** Characters, none of them a control character or half of a surrogate pair, which UTF-8 could not keep. */
const MESSAGE_ID = /^[^\p{Cc}\p{Cs}]+$/u;

function invalid(message: string, metadata: Readonly<Record<string, number>> = {}): LogError {
  return new LogError('INVALID_REQUEST', message, { metadata });
}

/** Whether a request is about a transaction, rightly or not. */
export function concernsTransaction({ transactionalId, batches }: ProduceCommand): boolean {
  if (transactionalId !== '') return true;
  for (const batch of batches) if (isTransactional(attributesOf(batch, 0))) return true;
  return false;
}

/**
 * Who sends the transactional batches of a request, each of which is valid by itself.
 * @throws LogError INVALID_TXN_STATE (nobody says for whom), INVALID_REQUEST (they do not go together)
 */
export function transactionalProducerOf({ transactionalId, batches }: ProduceCommand): TransactionalProducer {
  if (transactionalId === '') {
    throw new LogError(
      'INVALID_TXN_STATE',
      'The record batch is transactional and the request has no transactional_id. Set it to the id with which the ' +
        'producer was initialised (InitProducer), or send batches that are not transactional.',
    );
  }
  const [first] = batches;
  if (first === undefined) {
    throw invalid(
      'Plain records cannot be part of a transaction: send transactional record batches, or no transactional_id.',
    );
  }
  const producerId = producerIdOf(first, 0);
  const producerEpoch = producerEpochOf(first, 0);
  for (const [index, batch] of batches.entries()) {
    if (!isTransactional(attributesOf(batch, 0))) {
      throw invalid(
        `Batch ${index} is not transactional, but the request has a transactional_id. Mark every batch as ` +
          'transactional (attributes, bit 4), or send it without transactional_id.',
        { batch_index: index },
      );
    }
    if (producerIdOf(batch, 0) !== producerId || producerEpochOf(batch, 0) !== producerEpoch) {
      throw invalid(
        `Batch ${index} is of another producer or producer epoch than the first. All batches of a transactional ` +
          'request are of one.',
        { batch_index: index },
      );
    }
  }
  return { transactionalId, producerId, producerEpoch };
}

/** @throws LogError INVALID_REQUEST that names what does not go together */
export function checkMessageIds({ messageIds, records, expectedOffset }: ProduceCommand): void {
  if (messageIds.length === 0) return;
  if (records.length === 0) {
    throw invalid(
      'message_ids go with plain records (the field records). Record batches have producer ids and sequences.',
    );
  }
  if (messageIds.length !== records.length) {
    throw invalid(
      `The request has ${messageIds.length} message_ids for ${records.length} records. Send one for each record, or none.`,
      { message_id_count: messageIds.length, record_count: records.length },
    );
  }
  if (messageIds.length > MAX_MESSAGE_IDS) {
    throw invalid(
      `The request has ${messageIds.length} message_ids; at most ${MAX_MESSAGE_IDS} are taken at once. Send several requests.`,
      { message_id_count: messageIds.length, max_message_ids: MAX_MESSAGE_IDS },
    );
  }
  if (expectedOffset !== undefined) {
    throw invalid(
      'A request has either message_ids or expected_offset: a record that is there already is not appended, wherever ' +
        'the log ends.',
    );
  }
  for (const [index, id] of messageIds.entries()) checkMessageId(id, index);
  for (const [index, { headers = [] }] of records.entries()) {
    if (!headers.some(({ key }) => key === MESSAGE_ID_HEADER)) continue;
    throw invalid(`Record ${index} has a header ${MESSAGE_ID_HEADER}, where the broker keeps the message id.`, {
      record_index: index,
    });
  }
}

function checkMessageId(id: string, index: number): void {
  if (id.length <= MAX_MESSAGE_ID && MESSAGE_ID.test(id)) return;
  throw invalid(
    `Message id ${index} is ${JSON.stringify(id.slice(0, MAX_MESSAGE_ID))}: use 1 to ${MAX_MESSAGE_ID} characters, ` +
      'none of them a control character.',
    { message_id_index: index },
  );
}
