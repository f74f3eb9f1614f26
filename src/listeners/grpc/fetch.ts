import type { ServerUnaryCall, ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { Fetched, FetchPosition } from '../../broker/fetch.js';
import { ByteBudget } from '../../core/byte-budget.js';
import type { Timer } from '../../core/clock.js';
import { type LogError, toLogError } from '../../core/errors.js';
import type { ChunkedFetchStreamResponse } from '../../rpc/hot-codec.js';
import type {
  FetchedPartition,
  FetchRequest,
  FetchResponse,
  FetchStreamRequest,
  FetchStreamResponse,
  RecordFormatName,
} from '../../rpc/messages.js';
import { toStatusMessage } from '../../rpc/status-codec.js';
import { type ConnectionBudgets, refuseBeyond } from './connection-budgets.js';
import { serverStream, unary } from './handlers.js';
import { toRecordMessages } from './records.js';

const DEFAULT_FETCH_BYTES = 1024 * 1024;
const DEFAULT_STREAM_BYTES = 256 * 1024;
/** With plain records, less is read at once: each answer is bounded apart (see records.ts). */
const MAX_PLAIN_READ_BYTES = 256 * 1024;
const DEFAULT_WAIT_MS = 500;
/** An answer that nobody took by then is counted no longer. */
const MAX_UNTAKEN_MS = 60_000;
/** What a plain record weighs besides its key and value. */
const RECORD_WEIGHT_BYTES = 100;

type StreamMessage = FetchStreamResponse | ChunkedFetchStreamResponse;

/** FetchService over the broker. */
export function fetchHandlers(broker: Broker, budgets: ConnectionBudgets): UntypedServiceImplementation {
  return {
    Fetch: unary(broker.logger, (request: FetchRequest, call: ServerUnaryCall<FetchRequest, FetchResponse>) =>
      fetchWithinBudget(broker, budgets, request, call),
    ),
    FetchStream: serverStream(
      broker.logger,
      (request: FetchStreamRequest, call: ServerWritableStream<FetchStreamRequest, StreamMessage>) =>
        fetchStream(broker, budgets, request, call),
    ),
  };
}

function abortOnCancel(call: { once(event: 'cancelled' | 'close', listener: () => void): unknown }): AbortSignal {
  const controller = new AbortController();
  call.once('cancelled', () => controller.abort());
  call.once('close', () => controller.abort());
  return controller.signal;
}

function readBytes(requested: number, byDefault: number, format: RecordFormatName): number {
  const bytes = requested > 0 ? requested : byDefault;
  return format === 'RECORD_FORMAT_RECORDS' ? Math.min(bytes, MAX_PLAIN_READ_BYTES) : bytes;
}

/**
 * Answers count against the connection's and the broker's budget until the client has taken them. grpc-js says so by
 * 'cancelled', which it emits at the end of every unary call; it can miss a call that was cancelled before it was
 * handled, so that the charge is taken off after a while in any case.
 */
async function fetchWithinBudget(
  broker: Broker,
  budgets: ConnectionBudgets,
  request: FetchRequest,
  call: ServerUnaryCall<FetchRequest, FetchResponse>,
): Promise<FetchResponse> {
  const connection = budgets.acquire(call.getPeer());
  const outgoing = new OutgoingBytes(connection.budget);
  let over = false;
  const finish = (): void => {
    if (over) return;
    over = true;
    timer?.cancel();
    outgoing.close();
    connection.release();
  };
  let timer: Timer | undefined;
  call.once('cancelled', finish);
  try {
    refuseBeyond(connection.budget);
    const response = await fetchOnce(broker, request, call);
    refuseBeyond(connection.budget);
    if (over) return response;
    outgoing.add(weightOf(response));
    timer = broker.clock.setTimer(MAX_UNTAKEN_MS, finish);
    return response;
  } catch (error) {
    finish();
    throw error;
  }
}

function weightOf({ partitions }: FetchResponse): number {
  let bytes = 0;
  for (const { batches, records } of partitions) {
    bytes += batches.length;
    for (const { key, value } of records) bytes += RECORD_WEIGHT_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  }
  return bytes;
}

async function fetchOnce(
  broker: Broker,
  request: FetchRequest,
  call: ServerUnaryCall<FetchRequest, FetchResponse>,
): Promise<FetchResponse> {
  const fetched = await broker.fetch.fetch(
    {
      positions: request.positions.map((position) => ({ ...position, endOffset: undefined })),
      minBytes: request.minBytes,
      maxWaitMs: request.maxWaitMs ?? DEFAULT_WAIT_MS,
      maxBytes: readBytes(request.maxBytes, DEFAULT_FETCH_BYTES, request.format),
    },
    abortOnCancel(call),
  );
  // A single partition's failure is the call's failure: unary callers then need to look in one place only.
  const [only] = fetched;
  if (fetched.length === 1 && only?.error !== undefined) throw only.error;
  const offsets = new Map(request.positions.map((at) => [`${at.partition}/${at.topic}`, at.offset]));
  const partitions: FetchedPartition[] = [];
  for (const part of fetched) {
    const from = offsets.get(`${part.partition}/${part.topic}`) ?? part.nextOffset;
    partitions.push(await toMessage(part, from, request.format));
  }
  return { partitions };
}

async function toMessage(part: Fetched, fromOffset: number, format: RecordFormatName): Promise<FetchedPartition> {
  const message: FetchedPartition = {
    topic: part.topic,
    partition: part.partition,
    highWatermark: part.highWatermark,
    logStartOffset: part.logStartOffset,
    nextOffset: part.nextOffset,
    batches: Buffer.alloc(0),
    records: [],
  };
  if (part.error !== undefined) return { ...message, error: toStatusMessage(part.error) };
  if (format !== 'RECORD_FORMAT_RECORDS') return { ...message, batches: Buffer.concat(part.chunks) };
  return { ...message, ...(await plainRecords(part, fromOffset)) };
}

/** A batch that cannot be opened here is an error of its partition, not of the call. */
async function plainRecords(part: Fetched, fromOffset: number): Promise<Partial<FetchedPartition>> {
  try {
    return await toRecordMessages(part.chunks, fromOffset);
  } catch (error) {
    const failure: LogError = toLogError(error);
    return { error: toStatusMessage(failure), nextOffset: fromOffset };
  }
}

/**
 * Reads on while the client takes what it gets: bytes that were handed to the transport and not taken yet are counted
 * against the stream's, the connection's and the broker's budget, and reading waits while any of them is used up.
 */
async function fetchStream(
  broker: Broker,
  budgets: ConnectionBudgets,
  request: FetchStreamRequest,
  call: ServerWritableStream<FetchStreamRequest, StreamMessage>,
): Promise<void> {
  const connection = budgets.acquire(call.getPeer());
  const outgoing = new OutgoingBytes(new ByteBudget(budgets.streamLimitBytes, connection.budget));
  const signal = abortOnCancel(call);
  const plain = request.format === 'RECORD_FORMAT_RECORDS';
  const maxBytes = readBytes(request.maxBytes, DEFAULT_STREAM_BYTES, request.format);
  const positions = request.positions.map((position) => ({ ...position, endOffset: position.endOffset }));
  const parts = broker.fetch.stream(positions, maxBytes, signal);
  try {
    for await (const { message, byteLength } of plain ? plainMessages(parts, positions) : batchMessages(parts)) {
      if (signal.aborted) return;
      call.write(message, outgoing.add(byteLength));
      await outgoing.room(signal);
    }
  } finally {
    outgoing.close();
    connection.release();
  }
}

interface StreamPart {
  readonly message: StreamMessage;
  readonly byteLength: number;
}

async function* batchMessages(parts: AsyncIterable<Fetched>): AsyncGenerator<StreamPart, void, undefined> {
  for await (const part of parts) {
    const message =
      part.error === undefined
        ? { chunked: part }
        : { partition: await toMessage(part, part.nextOffset, 'RECORD_FORMAT_BATCHES') };
    yield { message, byteLength: part.byteLength };
  }
}

/** One piece of log may hold more plain records than one message takes: it is then sent in several. */
async function* plainMessages(
  parts: AsyncIterable<Fetched>,
  positions: readonly FetchPosition[],
): AsyncGenerator<StreamPart, void, undefined> {
  const readings = new Map(positions.map((at) => [`${at.partition}/${at.topic}`, { ...at }]));
  for await (const part of parts) {
    const reading = readings.get(`${part.partition}/${part.topic}`);
    if (reading === undefined) continue;
    do {
      const partition = await toMessage(part, reading.offset, 'RECORD_FORMAT_RECORDS');
      const end = reading.endOffset;
      if (end !== undefined) partition.records = partition.records.filter((record) => record.offset < end);
      yield { message: { partition }, byteLength: part.byteLength };
      if (partition.error !== undefined) return;
      reading.offset = partition.nextOffset;
    } while (reading.offset < Math.min(part.nextOffset, reading.endOffset ?? Number.POSITIVE_INFINITY));
  }
}

/** Bytes of one call that the transport has and the client has not taken. */
class OutgoingBytes {
  readonly #budget: ByteBudget;
  #outstanding = 0;
  #closed = false;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** Counts a message; the returned callback takes it off again. */
  add(bytes: number): () => void {
    this.#budget.charge(bytes);
    this.#outstanding += bytes;
    return () => {
      if (this.#closed) return;
      this.#outstanding -= bytes;
      this.#budget.release(bytes);
    };
  }

  /** Resolves at once when there is room at every level, else when there is, or when the call is over. */
  async room(signal: AbortSignal): Promise<void> {
    for (let full = this.#budget.exhausted; full !== undefined; full = this.#budget.exhausted) {
      if (signal.aborted) return;
      const waited = full;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener('abort', done);
          resolve();
        };
        waited.whenBelow(done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
  }

  /** Takes off whatever is left: a cancelled call never tells that its messages are gone. */
  close(): void {
    this.#closed = true;
    this.#budget.release(this.#outstanding);
    this.#outstanding = 0;
  }
}
