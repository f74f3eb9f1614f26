/** Giving a producer the identity that it sends under. */
import { LogError } from '../core/errors.js';
import type { ProducerIds } from './producer-ids.js';
import type { ProducerIdentity, TransactionCoordinatorApi } from './transactions/coordinator-types.js';

const MAX_PRODUCER_EPOCH = 32_767;

export interface InitProducerRequest {
  /** Empty: idempotent only. */
  readonly transactionalId: string;
  /** 0: the default. */
  readonly timeoutMs: number;
  /** What the caller was given before, both or neither. */
  readonly producerId: number | undefined;
  readonly producerEpoch: number | undefined;
}

export interface InitProducerOptions {
  readonly producerIds: ProducerIds;
  readonly transactions: Pick<TransactionCoordinatorApi, 'initProducer'>;
  readonly isDraining: () => boolean;
}

/**
 * A producer id of the caller's own with epoch 0; with a transactional id that of the id, whatever is open being aborted.
 * @throws LogError INVALID_REQUEST, BROKER_DRAINING and those of `ProducerIds.allocate` and
 *   `TransactionCoordinatorApi.initProducer`
 */
export async function initProducer(
  { producerIds, transactions, isDraining }: InitProducerOptions,
  request: InitProducerRequest,
): Promise<ProducerIdentity> {
  const { transactionalId, timeoutMs } = request;
  const current = currentOf(request);
  if (isDraining()) {
    throw new LogError('BROKER_DRAINING', 'The broker is stopping. Initialise the producer again after it is back.');
  }
  if (transactionalId !== '') return await transactions.initProducer({ transactionalId, timeoutMs, current });
  if (current === undefined) return { producerId: await producerIds.allocate(), producerEpoch: 0 };
  throw new LogError(
    'INVALID_REQUEST',
    'producer_id and producer_epoch go with a transactional_id. A producer that is idempotent only asks for a new id: ' +
      'leave them out.',
  );
}

function currentOf({ producerId, producerEpoch }: InitProducerRequest): ProducerIdentity | undefined {
  if (producerId === undefined && producerEpoch === undefined) return undefined;
  if (producerId === undefined || producerEpoch === undefined) {
    throw new LogError('INVALID_REQUEST', 'producer_id and producer_epoch go together: send both, or neither.');
  }
  if (producerId >= 0 && producerEpoch >= 0 && producerEpoch <= MAX_PRODUCER_EPOCH)
    return { producerId, producerEpoch };
  throw new LogError(
    'INVALID_REQUEST',
    `Producer id ${producerId} with epoch ${producerEpoch} is none that a broker gives: ids begin at 0, epochs go from ` +
      `0 to ${MAX_PRODUCER_EPOCH}.`,
    { metadata: { producer_id: producerId, producer_epoch: producerEpoch } },
  );
}
