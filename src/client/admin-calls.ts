/** How administrative calls are made: with a deadline, and repeated while that is safe and may help. */
import { LogError } from '../core/errors.js';
import type { Channel } from './channel.js';
import { callFailure, closedError } from './failures.js';
import type { Method } from './methods.js';
import type { ClientRuntime } from './options.js';
import { DEFAULT_BACKOFF, withRetries } from './retry.js';

export interface CallOptions {
  /** Abandons the call; it may still be carried out. */
  readonly signal?: AbortSignal;
}

/** Calls over one channel. All methods reject with LogError. */
export class AdminCalls {
  readonly #channel: Channel;
  readonly #runtime: ClientRuntime;
  readonly #requestTimeoutMs: number;
  #closed = false;

  /** @param requestTimeoutMs for one call with its repetitions */
  constructor(channel: Channel, runtime: ClientRuntime, requestTimeoutMs: number) {
    this.#channel = channel;
    this.#runtime = runtime;
    this.#requestTimeoutMs = requestTimeoutMs;
  }

  /** Calls fail from here on. */
  close(): void {
    this.#closed = true;
  }

  /** Repeated after any failure that may pass. */
  idempotent<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    return this.#call(method, request, options, () => true);
  }

  /** A call that is not idempotent: repeated only while it certainly had no effect. */
  change<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Response> {
    return this.#call(method, request, options, (error) => error.outcome === 'none');
  }

  async #call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
    mayRepeat: (error: LogError) => boolean,
  ): Promise<Response> {
    const { clock, random } = this.#runtime;
    const { signal } = options;
    const deadline = clock.monotonic() + this.#requestTimeoutMs;
    const context = { clock, random, backoff: DEFAULT_BACKOFF, limitMs: this.#requestTimeoutMs, signal };
    return withRetries(
      context,
      async () => {
        if (this.#closed) throw closedError('client');
        const timeoutMs = Math.max(1, deadline - clock.monotonic());
        try {
          return await this.#channel.unary(method, request, { timeoutMs, signal });
        } catch (error) {
          throw this.#closed ? closedError('client') : callFailure(error);
        }
      },
      mayRepeat,
    );
  }
}

/**
 * Everything in a list, page after page.
 * @param fetchPage answers the page that a token stands for, '' for the first, with the token of the next, '' for none
 */
export async function allPages<T>(
  what: string,
  fetchPage: (pageToken: string) => Promise<{ readonly items: readonly T[]; readonly nextPageToken: string }>,
): Promise<T[]> {
  const all: T[] = [];
  let pageToken = '';
  do {
    const { items, nextPageToken } = await fetchPage(pageToken);
    for (const item of items) all.push(item);
    if (nextPageToken !== '' && nextPageToken === pageToken) {
      throw new LogError('INTERNAL', `The broker returned the same page of ${what} twice.`);
    }
    pageToken = nextPageToken;
  } while (pageToken !== '');
  return all;
}
