/** One CommitOffsetsStream for all consumers of a client: requests out, answers in, nothing about repeating them. */
import type { ClientDuplexStream } from '@grpc/grpc-js';
import type { Clock, Timer } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import type {
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  CommitOffsetsStreamRequest,
  CommitOffsetsStreamResponse,
  CommitOffsetsStreamResult,
} from '../../rpc/group-messages.js';
import { fromStatusMessage } from '../../rpc/status-codec.js';
import { type Channel, cancelCall } from '../channel.js';
import { callFailure, closedError } from '../failures.js';
import { methods } from '../methods.js';

type CommitCall = ClientDuplexStream<CommitOffsetsStreamRequest, CommitOffsetsStreamResponse>;

interface PendingCommit {
  readonly resolve: (response: CommitOffsetsResponse) => void;
  readonly reject: (error: LogError) => void;
  readonly timer: Timer;
}

/** Invariant: every request sent is settled exactly once: by its answer, the end of its call, or the timeout. */
class OpenStream {
  readonly #call: CommitCall;
  readonly #onOver: () => void;
  readonly #pending = new Map<number, PendingCommit>();
  #nextCorrelationId = 1;
  #over = false;

  constructor(call: CommitCall, onOver: () => void) {
    this.#call = call;
    this.#onOver = onOver;
    call.on('data', ({ results }: CommitOffsetsStreamResponse) => {
      for (const result of results) this.#onResult(result);
    });
    call.on('error', (error: Error) => this.#end(callFailure(error)));
    call.on('end', () => this.#end(new LogError('CONNECTION_LOST', 'The broker ended the stream of commits.')));
  }

  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  send(request: CommitOffsetsRequest, clock: Clock, timeoutMs: number): Promise<CommitOffsetsResponse> {
    const correlationId = this.#nextCorrelationId++;
    return new Promise((resolve, reject) => {
      const timer = clock.setTimer(timeoutMs, () => this.abort(unanswered(timeoutMs)));
      this.#pending.set(correlationId, { resolve, reject, timer });
      this.#call.write({ correlationId, request });
    });
  }

  /** Ends the call in order; only without requests under way. */
  close(): void {
    this.#over = true;
    this.#call.end();
  }

  /** Gives the call up: what is unanswered fails with `error`. */
  abort(error: LogError): void {
    if (this.#over) return;
    cancelCall(this.#call);
    this.#end(error);
  }

  #onResult({ correlationId, response, error }: CommitOffsetsStreamResult): void {
    const request = this.#pending.get(correlationId);
    if (request === undefined) return;
    this.#pending.delete(correlationId);
    request.timer.cancel();
    if (error !== undefined && error !== null) request.reject(fromStatusMessage(error));
    else request.resolve(response ?? { refused: [] });
  }

  #end(error: LogError): void {
    if (this.#over) return;
    this.#over = true;
    const unanswered = [...this.#pending.values()];
    this.#pending.clear();
    this.#onOver();
    for (const { timer, reject } of unanswered) {
      timer.cancel();
      reject(error);
    }
  }
}

/** The stream is opened when it is first needed, opened anew after it broke, and ended when nobody uses it. */
export class CommitStreams {
  readonly #channel: Pick<Channel, 'duplex'>;
  readonly #clock: Clock;
  /** A stream that leaves a request unanswered for this long is given up, in ms. */
  readonly #requestTimeoutMs: number;
  #stream: OpenStream | undefined;
  #users = 0;
  #closed = false;

  constructor(channel: Pick<Channel, 'duplex'>, clock: Clock, requestTimeoutMs: number) {
    this.#channel = channel;
    this.#clock = clock;
    this.#requestTimeoutMs = requestTimeoutMs;
  }

  /** The stream stays open, once it is, until every user has called the function that this returns. */
  use(): () => void {
    this.#users++;
    let used = true;
    return () => {
      if (!used) return;
      used = false;
      this.#users--;
      this.#endWhenUnused();
    };
  }

  /**
   * Sends one request, not repeated.
   * @throws LogError what the broker answered; BROKER_UNAVAILABLE, CONNECTION_LOST, REQUEST_TIMED_OUT, CLOSED
   */
  async send(request: CommitOffsetsRequest): Promise<CommitOffsetsResponse> {
    if (this.#closed) throw closedError('client');
    this.#stream ??= this.#open();
    try {
      return await this.#stream.send(request, this.#clock, this.#requestTimeoutMs);
    } finally {
      this.#endWhenUnused();
    }
  }

  /** What is under way fails with CLOSED. */
  close(): void {
    this.#closed = true;
    this.#stream?.abort(closedError('client'));
  }

  #open(): OpenStream {
    const stream = new OpenStream(this.#channel.duplex(methods.commitOffsetsStream), () => {
      if (this.#stream === stream) this.#stream = undefined;
    });
    return stream;
  }

  #endWhenUnused(): void {
    if (this.#users > 0 || this.#stream === undefined || !this.#stream.isIdle) return;
    this.#stream.close();
    this.#stream = undefined;
  }
}

function unanswered(timeoutMs: number): LogError {
  return new LogError('REQUEST_TIMED_OUT', `The broker did not answer a commit in ${timeoutMs} ms.`);
}
