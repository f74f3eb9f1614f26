/**
 * Bytes that clients have sent and no handler has taken yet: requests that are not complete, and what waits on streams
 * that are not read on. The transport keeps them without a limit of its own over all streams.
 *
 * Half full, the budget slows everybody down: windows shrink, so that each stream may send little more than it has. When
 * it is full all the same, the stream that holds most is reset.
 */
import type { Http2Stream, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Logger } from '../../core/logger.js';
import { wireSizeOf } from './handlers.js';
import { http2StreamOf, refuseCompression, resetStream } from './transport.js';

/** What a stream may have on its way while the budget is short: the window that HTTP/2 begins with. */
const SHORT_WINDOW_BYTES = 64 * 1024;
/** What stands before each message on the wire. */
const FRAME_OVERHEAD_BYTES = 5;

/** What one stream holds. */
class Receipt {
  readonly stream: ServerHttp2Stream;
  heldBytes = 0;

  constructor(stream: ServerHttp2Stream) {
    this.stream = stream;
  }
}

export interface ReceiveBudgetOptions {
  readonly limitBytes: number;
  /** Flow-control window of a stream while there is room. */
  readonly windowBytes: number;
  /** Calls open at once, on all connections. */
  readonly maxStreams: number;
  readonly logger: Logger;
}

export class ReceiveBudget {
  readonly #options: ReceiveBudgetOptions;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #receipts = new Map<Http2Stream, Receipt>();
  #heldBytes = 0;
  #short = false;

  constructor(options: ReceiveBudgetOptions) {
    this.#options = options;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Counts what comes on a connection, until it closes. */
  watch(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
    // The client has confirmed the last settings.
    session.on('localSettings', () => this.#adjustWindows(session));
    // Before the transport begins to handle it.
    session.prependListener('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      refuseCompression(headers);
      this.#watchStream(stream);
    });
  }

  #watchStream(stream: ServerHttp2Stream): void {
    if (this.#receipts.size >= this.#options.maxStreams) {
      resetStream(stream);
      return;
    }
    const receipt = new Receipt(stream);
    this.#receipts.set(stream, receipt);
    // Before it is read, unlike 'data': a stream that is not read on holds up to its window.
    const push = stream.push;
    stream.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
      const more = push.call(stream, chunk, encoding);
      if (chunk instanceof Uint8Array) this.#received(receipt, chunk.length);
      return more;
    };
    // With the last byte the request is complete and its handler has it; streams of requests take off each by itself.
    stream.once('end', () => this.#release(receipt, receipt.heldBytes));
    stream.once('close', () => {
      this.#release(receipt, receipt.heldBytes);
      this.#receipts.delete(stream);
    });
  }

  /** For calls of many requests: what to call with each that the handler takes. */
  takerOf(call: object): (request: object) => void {
    const stream = http2StreamOf(call);
    const receipt = stream === undefined ? undefined : this.#receipts.get(stream);
    if (receipt === undefined) return () => undefined;
    return (request) => {
      const bytes = wireSizeOf(request) + FRAME_OVERHEAD_BYTES;
      this.#release(receipt, Math.min(bytes, receipt.heldBytes));
    };
  }

  #received(receipt: Receipt, bytes: number): void {
    receipt.heldBytes += bytes;
    this.#heldBytes += bytes;
    if (!this.#short && this.#heldBytes > this.#options.limitBytes / 2) this.#slowDown();
    while (this.#heldBytes > this.#options.limitBytes) this.#resetLargest();
  }

  #release(receipt: Receipt, bytes: number): void {
    receipt.heldBytes -= bytes;
    this.#heldBytes -= bytes;
    if (this.#short && this.#heldBytes < this.#options.limitBytes / 4) this.#speedUp();
  }

  #slowDown(): void {
    this.#short = true;
    this.#options.logger.warn(
      { heldBytes: this.#heldBytes, limitBytes: this.#options.limitBytes },
      'clients send more than is worked off: they are slowed down',
    );
    for (const session of this.#sessions) this.#adjustWindows(session);
  }

  #speedUp(): void {
    this.#short = false;
    for (const session of this.#sessions) this.#adjustWindows(session);
  }

  #resetLargest(): void {
    let largest: Receipt | undefined;
    for (const receipt of this.#receipts.values()) {
      if (receipt.heldBytes > (largest?.heldBytes ?? 0)) largest = receipt;
    }
    if (largest === undefined) return;
    this.#release(largest, largest.heldBytes);
    resetStream(largest.stream);
  }

  /**
   * Sets the window of every stream of a connection, also of those that are open. One change at a time is under way:
   * Node.js ends a connection whose client is slow to confirm many.
   */
  #adjustWindows(session: ServerHttp2Session): void {
    if (session.closed || session.destroyed || session.pendingSettingsAck) return;
    const initialWindowSize = this.#short ? SHORT_WINDOW_BYTES : this.#options.windowBytes;
    if (session.localSettings.initialWindowSize !== initialWindowSize) session.settings({ initialWindowSize });
  }
}
