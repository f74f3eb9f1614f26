import type { ServerDuplexStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { ProduceCommand } from '../../broker/produce.js';
import { ByteBudget } from '../../core/byte-budget.js';
import { LogError } from '../../core/errors.js';
import { AppendLane } from '../../partition/append-lane.js';
import type { Acks, AppendResult } from '../../partition/partition.js';
import type {
  AcksName,
  ProduceRequest,
  ProduceResponse,
  ProduceStreamRequest,
  ProduceStreamResponse,
  ProduceStreamResult,
} from '../../rpc/messages.js';
import { toServiceError, toStatusMessage } from '../../rpc/status-codec.js';
import type { BudgetsByKind, ConnectionBudgets } from './connection-budgets.js';
import { RefusedRequest, reportable, unary } from './handlers.js';
import type { ReceiveBudget } from './receive-budget.js';
import { toPlainRecords } from './records.js';
import { readOneAhead } from './transport.js';

type ProduceCall = ServerDuplexStream<ProduceStreamRequest, ProduceStreamResponse>;

/** Partitions that one stream may write to. */
const MAX_LANES = 20_000;
/** Answers handed to the transport and not yet taken; beyond it the stream is not read on. */
const MAX_UNSENT_ANSWERS = 64;
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
  readonly #received: ReceiveBudget;
  readonly #open = new Set<ProduceSession>();
  #draining = false;

  constructor(broker: Broker, budgets: BudgetsByKind, received: ReceiveBudget) {
    this.#broker = broker;
    this.#budgets = budgets;
    this.#received = received;
  }

  handlers(): UntypedServiceImplementation {
    const broker = this.#broker;
    return {
      Produce: unary(broker.logger, (request: ProduceRequest, call) =>
        this.#budgets.unary.whileCharged(call.getPeer(), weightOf(request), () => produceOnce(broker, request)),
      ),
      ProduceStream: (call: ProduceCall): void => {
        const onTaken = this.#received.takerOf(call);
        const session = new ProduceSession(broker, call, this.#budgets.produceStreams, onTaken, () =>
          this.#open.delete(session),
        );
        this.#open.add(session);
        if (this.#draining) session.drain();
      },
    };
  }

  /** Ends every stream, each after everything it sent was answered. */
  drain(): void {
    this.#draining = true;
    for (const session of this.#open) session.drain();
  }
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
  };
}

function toResponse(result: AppendResult, acks: Acks): ProduceResponse {
  const { logAppendTimeMs, logStartOffset } = result;
  if (acks === 'none') return { baseOffset: -1, lastOffset: -1, logAppendTimeMs, logStartOffset };
  return { baseOffset: result.baseOffset, lastOffset: result.lastOffset, logAppendTimeMs, logStartOffset };
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
  return bytes;
}

/**
 * One produce stream. Reads requests while there is room in the byte budgets, appends them in order, and answers
 * together whatever became ready together.
 */
class ProduceSession {
  readonly #broker: Broker;
  readonly #call: ProduceCall;
  readonly #budget: ByteBudget;
  readonly #releaseConnection: () => void;
  readonly #onTaken: (request: object) => void;
  readonly #onOver: () => void;
  readonly #lanes = new Map<string, AppendLane>();
  #results: ProduceStreamResult[] = [];
  #inFlight = 0;
  #unsentAnswers = 0;
  #paused = false;
  /** Gives up waiting for room; undefined while nothing is waited for. */
  #stopWaiting: (() => void) | undefined;
  #halfClosed = false;
  #draining = false;
  #over = false;

  constructor(
    broker: Broker,
    call: ProduceCall,
    budgets: ConnectionBudgets,
    onTaken: (request: object) => void,
    onOver: () => void,
  ) {
    this.#broker = broker;
    this.#call = call;
    const connection = budgets.acquire(call.getPeer());
    this.#budget = new ByteBudget(budgets.streamLimitBytes, connection.budget);
    this.#releaseConnection = connection.release;
    this.#onTaken = onTaken;
    this.#onOver = onOver;
    readOneAhead(call);
    call.on('data', (message: ProduceStreamRequest | RefusedRequest) => this.#receive(message));
    call.on('end', () => {
      this.#halfClosed = true;
      this.#endIfDone();
    });
    call.on('cancelled', () => this.#finish());
    call.on('error', () => this.#finish());
    call.on('close', () => this.#finish());
  }

  #receive(message: ProduceStreamRequest | RefusedRequest): void {
    this.#onTaken(message);
    if (this.#over) return;
    if (message instanceof RefusedRequest) {
      // Its correlation id is unknown, so no answer could be matched to it: the stream ends here.
      this.#fail(message.error);
      return;
    }
    const lane = this.#laneOf(message.request);
    if (lane === undefined) {
      this.#fail(new LogError('RESOURCE_LIMIT', `One stream writes to at most ${MAX_LANES} partitions.`));
      return;
    }
    const bytes = weightOf(message.request);
    this.#budget.charge(bytes);
    this.#inFlight++;
    this.#pauseIfFull();
    const command = toCommand(message.request);
    this.#broker.produce.produce(command, lane).then(
      (result) => {
        if (command.acks !== 'none')
          this.#answer({ correlationId: message.correlationId, response: toResponse(result, command.acks) });
        this.#settled(bytes);
      },
      (error: unknown) => {
        const failure = reportable(error, this.#broker.logger, this.#call.getPath());
        this.#answer({ correlationId: message.correlationId, error: toStatusMessage(failure) });
        this.#settled(bytes);
      },
    );
  }

  #laneOf(request: ProduceRequest): AppendLane | undefined {
    const key = `${request.partition}/${request.topic}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      if (this.#lanes.size >= MAX_LANES) return undefined;
      lane = new AppendLane();
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #settled(bytes: number): void {
    this.#budget.release(bytes);
    this.#inFlight--;
    this.#endIfDone();
  }

  #pauseIfFull(): void {
    if (this.#paused || this.#over) return;
    const exhausted = this.#budget.exhausted;
    if (exhausted !== undefined) {
      this.#pause();
      this.#awaitRoom(exhausted);
    } else if (this.#unsentAnswers > MAX_UNSENT_ANSWERS) {
      this.#pause();
    }
  }

  /** Waits in one place at a time: a budget keeps everybody who waits for it. */
  #awaitRoom(full: ByteBudget): void {
    if (this.#stopWaiting !== undefined) return;
    this.#stopWaiting = full.whenBelow(() => {
      this.#stopWaiting = undefined;
      this.#resume();
    });
  }

  #pause(): void {
    this.#paused = true;
    this.#call.pause();
  }

  #resume(): void {
    this.#paused = false;
    this.#pauseIfFull();
    if (!this.#paused && !this.#over) this.#call.resume();
  }

  #answer(result: ProduceStreamResult): void {
    if (this.#over) return;
    this.#results.push(result);
    if (this.#results.length === 1) setImmediate(() => this.#sendAnswers());
  }

  #sendAnswers(): void {
    if (this.#over || this.#results.length === 0) return;
    const results = this.#results;
    this.#results = [];
    this.#unsentAnswers++;
    this.#pauseIfFull();
    this.#call.write({ results }, () => {
      this.#unsentAnswers--;
      if (this.#paused && this.#stopWaiting === undefined && this.#unsentAnswers === MAX_UNSENT_ANSWERS) this.#resume();
    });
    this.#endIfDone();
  }

  /** Ends the stream once everything it sent was answered. */
  drain(): void {
    this.#draining = true;
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#over || this.#inFlight > 0 || this.#results.length > 0) return;
    if (this.#halfClosed) {
      this.#call.end();
      this.#finish();
    } else if (this.#draining) {
      this.#fail(new LogError('BROKER_DRAINING', 'The broker is stopping. Send further records after it is back.'));
    }
  }

  #fail(error: LogError): void {
    if (this.#over) return;
    this.#sendAnswers();
    this.#finish();
    this.#call.emit('error', toServiceError(error));
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#stopWaiting?.();
    this.#lanes.clear();
    this.#releaseConnection();
    this.#onOver();
    // What still comes is thrown away, so that the transport can let go of it.
    this.#call.resume();
  }
}
