/** Streams of requests that are answered by their correlation ids: what they have in common, whatever they carry. */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { ByteBudget } from '../../core/byte-budget.js';
import { LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { StatusMessage } from '../../rpc/messages.js';
import { toServiceError, toStatusMessage } from '../../rpc/status-codec.js';
import type { ConnectionBudgets } from './connection-budgets.js';
import { RefusedRequest, reportable } from './handlers.js';
import type { ReceiveBudget } from './receive-budget.js';
import { readOneAhead } from './transport.js';

/** Answers handed to the transport and not yet taken; beyond it the stream is not read on. */
const MAX_UNSENT_ANSWERS = 64;

export interface PipelinedRequest<Request> {
  readonly correlationId: number;
  readonly request: Request;
}

export interface PipelinedResult<Response> {
  correlationId: number;
  response?: Response | undefined;
  error?: StatusMessage | undefined;
}

export type PipelinedCall<Request, Response> = ServerDuplexStream<
  PipelinedRequest<Request>,
  { results: PipelinedResult<Response>[] }
>;

/** A request that is being carried out. */
export interface Begun<Response> {
  /** What it weighs against the byte budgets until it is answered. */
  readonly bytes: number;
  /** Undefined: it is not answered. A rejection is the answer of this request alone. */
  readonly outcome: Promise<Response | undefined>;
}

export interface PipelineOptions<Request, Response> {
  readonly logger: Logger;
  readonly budgets: ConnectionBudgets;
  readonly received: ReceiveBudget;
  /** Requests of one stream that may wait for their answers; beyond it the stream is not read on. */
  readonly maxUnanswered: number;
  /** What a client is told whose stream ends because the broker stops. */
  readonly drained: string;
  /**
   * Called for each new stream: gives what begins its requests, one after the other in the order sent. A LogError that
   * it throws ends the stream.
   */
  readonly open: () => (request: Request) => Begun<Response>;
}

/** All open streams of one method. */
export class Pipeline<Request, Response> {
  readonly #options: PipelineOptions<Request, Response>;
  readonly #open = new Set<PipelinedStream<Request, Response>>();
  #draining = false;

  constructor(options: PipelineOptions<Request, Response>) {
    this.#options = options;
  }

  /** The method's handler. */
  handle(call: PipelinedCall<Request, Response>): void {
    const stream = new PipelinedStream(call, this.#options, () => this.#open.delete(stream));
    this.#open.add(stream);
    if (this.#draining) stream.drain();
  }

  /** Ends every stream, each after everything it sent was answered. */
  drain(): void {
    this.#draining = true;
    for (const stream of this.#open) stream.drain();
  }
}

/**
 * One stream. Reads requests while there is room in the byte budgets, begins them in order, and answers together whatever
 * became ready together.
 */
class PipelinedStream<Request, Response> {
  readonly #call: PipelinedCall<Request, Response>;
  readonly #options: PipelineOptions<Request, Response>;
  readonly #begin: (request: Request) => Begun<Response>;
  readonly #budget: ByteBudget;
  readonly #releaseConnection: () => void;
  readonly #onTaken: (request: object) => void;
  readonly #onOver: () => void;
  #results: PipelinedResult<Response>[] = [];
  #unanswered = 0;
  #unsentAnswers = 0;
  #paused = false;
  /** Gives up waiting for room; undefined while nothing is waited for. */
  #stopWaiting: (() => void) | undefined;
  #halfClosed = false;
  #draining = false;
  #over = false;

  constructor(call: PipelinedCall<Request, Response>, options: PipelineOptions<Request, Response>, onOver: () => void) {
    const { budgets, received } = options;
    this.#call = call;
    this.#options = options;
    this.#begin = options.open();
    const connection = budgets.acquire(call.getPeer());
    this.#budget = new ByteBudget(budgets.streamLimitBytes, connection.budget);
    this.#releaseConnection = connection.release;
    this.#onTaken = received.takerOf(call);
    this.#onOver = onOver;
    readOneAhead(call);
    call.on('data', (message: PipelinedRequest<Request> | RefusedRequest) => this.#receive(message));
    call.on('end', () => {
      this.#halfClosed = true;
      this.#endIfDone();
    });
    call.on('cancelled', () => this.#finish());
    call.on('error', () => this.#finish());
    call.on('close', () => this.#finish());
  }

  #receive(message: PipelinedRequest<Request> | RefusedRequest): void {
    this.#onTaken(message);
    if (this.#over) return;
    if (message instanceof RefusedRequest) {
      // Its correlation id is unknown, so no answer could be matched to it: the stream ends here.
      this.#fail(message.error);
      return;
    }
    try {
      this.#follow(message.correlationId, this.#begin(message.request));
    } catch (error) {
      this.#fail(reportable(error, this.#options.logger, this.#call.getPath()));
    }
  }

  #follow(correlationId: number, { bytes, outcome }: Begun<Response>): void {
    this.#budget.charge(bytes);
    this.#unanswered++;
    this.#pauseIfFull();
    outcome.then(
      (response) => {
        if (response !== undefined) this.#answer({ correlationId, response });
        this.#settled(bytes);
      },
      (error: unknown) => {
        const failure = reportable(error, this.#options.logger, this.#call.getPath());
        this.#answer({ correlationId, error: toStatusMessage(failure) });
        this.#settled(bytes);
      },
    );
  }

  #settled(bytes: number): void {
    this.#budget.release(bytes);
    this.#unanswered--;
    this.#resumeIfFewer();
    this.#endIfDone();
  }

  get #tooMany(): boolean {
    return this.#unsentAnswers > MAX_UNSENT_ANSWERS || this.#unanswered >= this.#options.maxUnanswered;
  }

  #pauseIfFull(): void {
    if (this.#paused || this.#over) return;
    const exhausted = this.#budget.exhausted;
    if (exhausted !== undefined) {
      this.#pause();
      this.#awaitRoom(exhausted);
    } else if (this.#tooMany) {
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

  #resumeIfFewer(): void {
    if (this.#paused && this.#stopWaiting === undefined && !this.#tooMany) this.#resume();
  }

  #answer(result: PipelinedResult<Response>): void {
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
      this.#resumeIfFewer();
    });
    this.#endIfDone();
  }

  /** Ends the stream once everything it sent was answered. */
  drain(): void {
    this.#draining = true;
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#over || this.#unanswered > 0 || this.#results.length > 0) return;
    if (this.#halfClosed) {
      this.#call.end();
      this.#finish();
    } else if (this.#draining) {
      this.#fail(new LogError('BROKER_DRAINING', this.#options.drained));
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
    this.#releaseConnection();
    this.#onOver();
    // What still comes is thrown away, so that the transport can let go of it.
    this.#call.resume();
  }
}
