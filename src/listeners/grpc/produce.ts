import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { ProduceCommand } from '../../broker/produce.js';
import { LogError } from '../../core/errors.js';
import { AppendLane } from '../../partition/append-lane.js';
import type { Acks, AppendResult } from '../../partition/partition.js';
import type {
  AcksName,
  InitProducerRequest,
  InitProducerResponse,
  ProduceRequest,
  ProduceResponse,
} from '../../rpc/messages.js';
import type { BudgetsByKind } from './connection-budgets.js';
import { unary } from './handlers.js';
import { type Begun, Pipeline, type PipelinedCall } from './pipelined-stream.js';
import type { ReceiveBudget } from './receive-budget.js';
import { toPlainRecords } from './records.js';

/** Partitions that one stream may write to. */
const MAX_LANES = 20_000;
/** What a request weighs besides its batches. */
const REQUEST_OVERHEAD_BYTES = 256;
/** What a batch weighs besides its bytes, a header besides its value. */
const PART_OVERHEAD_BYTES = 128;

const ACKS: Readonly<Record<AcksName, Acks>> = {
  ACKS_UNSPECIFIED: 'durable',
  ACKS_NONE: 'none',
  ACKS_WRITTEN: 'written',
  ACKS_DURABLE: 'durable',
};

/** ProduceService over the broker, and the streams that are open. */
export class ProduceSessions {
  readonly #broker: Broker;
  readonly #budgets: BudgetsByKind;
  readonly #streams: Pipeline<ProduceRequest, ProduceResponse>;

  constructor(broker: Broker, budgets: BudgetsByKind, received: ReceiveBudget) {
    this.#broker = broker;
    this.#budgets = budgets;
    this.#streams = new Pipeline({
      logger: broker.logger,
      budgets: budgets.produceStreams,
      received,
      maxUnanswered: Number.POSITIVE_INFINITY,
      drained: 'The broker is stopping. Send further records after it is back.',
      open: () => {
        const lanes = new Lanes();
        return (request) => beginProduce(broker, lanes, request);
      },
    });
  }

  handlers(): UntypedServiceImplementation {
    const broker = this.#broker;
    return {
      InitProducer: unary(broker.logger, (request: InitProducerRequest, call) =>
        this.#budgets.unary.whileCharged(call.getPeer(), weightOfInit(request), () => initProducer(broker, request)),
      ),
      Produce: unary(broker.logger, (request: ProduceRequest, call) =>
        this.#budgets.unary.whileCharged(call.getPeer(), weightOf(request), () => produceOnce(broker, request)),
      ),
      ProduceStream: (call: PipelinedCall<ProduceRequest, ProduceResponse>): void => this.#streams.handle(call),
    };
  }

  /** Ends every stream, each after everything it sent was answered. */
  drain(): void {
    this.#streams.drain();
  }
}

async function initProducer(broker: Broker, request: InitProducerRequest): Promise<InitProducerResponse> {
  const { transactionalId, transactionTimeoutMs: timeoutMs, producerId, producerEpoch } = request;
  const identity = await broker.initProducer({ transactionalId, timeoutMs, producerId, producerEpoch });
  return { producerId: identity.producerId, producerEpoch: identity.producerEpoch };
}

function weightOfInit({ transactionalId }: InitProducerRequest): number {
  return REQUEST_OVERHEAD_BYTES + transactionalId.length;
}

function toCommand(request: ProduceRequest): ProduceCommand {
  return {
    topic: request.topic,
    topicId: request.topicId,
    partition: request.partition,
    acks: ACKS[request.acks] ?? 'durable',
    batches: request.batches,
    records: toPlainRecords(request.records),
    expectedOffset: request.expectedOffset,
    transactionalId: request.transactionalId,
    messageIds: request.messageIds,
  };
}

function toResponse(result: AppendResult, acks: Acks): ProduceResponse {
  const { logAppendTimeMs, logStartOffset, duplicateCount } = result;
  if (acks === 'none') {
    return { baseOffset: -1, lastOffset: -1, logAppendTimeMs, logStartOffset, offsets: [], duplicateCount };
  }
  const { baseOffset, lastOffset, offsets = [] } = result;
  return { baseOffset, lastOffset, logAppendTimeMs, logStartOffset, offsets: [...offsets], duplicateCount };
}

async function produceOnce(broker: Broker, request: ProduceRequest): Promise<ProduceResponse> {
  const command = toCommand(request);
  return toResponse(await broker.produce.produce(command), command.acks);
}

function weightOf(request: ProduceRequest): number {
  let bytes = REQUEST_OVERHEAD_BYTES;
  for (const batch of request.batches) bytes += PART_OVERHEAD_BYTES + batch.length;
  for (const { key, value, headers } of request.records) {
    bytes += REQUEST_OVERHEAD_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
    for (const header of headers) bytes += PART_OVERHEAD_BYTES + header.key.length + (header.value?.length ?? 0);
  }
  // Each becomes a header of its record.
  for (const id of request.messageIds) bytes += PART_OVERHEAD_BYTES + id.length;
  return bytes;
}

/** The order of one stream's appends, partition by partition. */
class Lanes {
  readonly #lanes = new Map<string, AppendLane>();

  /** @throws LogError RESOURCE_LIMIT */
  of({ partition, topic }: ProduceRequest): AppendLane {
    const key = `${partition}/${topic}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      if (this.#lanes.size >= MAX_LANES) {
        throw new LogError('RESOURCE_LIMIT', `One stream writes to at most ${MAX_LANES} partitions.`);
      }
      lane = new AppendLane();
      this.#lanes.set(key, lane);
    }
    return lane;
  }
}

function beginProduce(broker: Broker, lanes: Lanes, request: ProduceRequest): Begun<ProduceResponse> {
  const lane = lanes.of(request);
  const bytes = weightOf(request);
  const command = toCommand(request);
  const outcome = broker.produce
    .produce(command, lane)
    .then((result) => (command.acks === 'none' ? undefined : toResponse(result, command.acks)));
  return { bytes, outcome };
}
