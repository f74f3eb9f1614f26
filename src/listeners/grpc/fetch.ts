import type { ServerUnaryCall, ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Broker } from '../../broker/broker.js';
import type { Admission, Fetched, FetchPosition } from '../../broker/fetch.js';
import { ByteBudget } from '../../core/byte-budget.js';
import { type LogError, toLogError } from '../../core/errors.js';
import { Semaphore } from '../../core/semaphore.js';
import type { ChunkedFetchStreamResponse } from '../../rpc/fetch-codec.js';
import type {
  FetchedPartition,
  FetchRequest,
  FetchResponse,
  FetchStreamRequest,
  FetchStreamResponse,
  RecordFormatName,
  RecordMessage,
} from '../../rpc/messages.js';
import { toStatusMessage } from '../../rpc/status-codec.js';
import { type BudgetsByKind, refuseBeyond } from './connection-budgets.js';
import { abortOnCancel, serverStream, unary } from './handlers.js';
import { toIsolation } from './isolation.js';
import { OpenReaders } from './open-readers.js';
import { type Gate, OutgoingBytes } from './outgoing-bytes.js';
import { MAX_PLAIN_BYTES, toRecordMessages } from './records.js';
import { http2StreamOf, resetStream } from './transport.js';
import { untilTaken } from './unary-answers.js';

const DEFAULT_FETCH_BYTES = 1024 * 1024;
const DEFAULT_STREAM_BYTES = 256 * 1024;
/** One message of a stream carries about this much at most, so that many streams share what there is. */
const MAX_STREAM_READ_BYTES = 1024 * 1024;
/** Reads under way at once, of all calls: what they give may come on top of a budget that is used up. */
const MAX_READS = 8;
/** With plain records, less is read at once: each answer is bounded apart (see records.ts). */
const MAX_PLAIN_READ_BYTES = 256 * 1024;
/** What plain records are made of may take this part of the room of fetch streams, besides it. */
const SOURCES_SHARE = 4;
const DEFAULT_WAIT_MS = 500;
/** What a plain record weighs besides its key and value. */
const RECORD_WEIGHT_BYTES = 100;
/** What an aborted transaction weighs. */
const ABORTED_WEIGHT_BYTES = 48;

type StreamMessage = FetchStreamResponse | ChunkedFetchStreamResponse;

/** What is needed of the broker. */
export type FetchBroker = Pick<Broker, 'clock' | 'logger' | 'fetch'>;

/** What the calls share. */
interface FetchContext {
  readonly broker: FetchBroker;
  readonly budgets: BudgetsByKind;
  readonly readers: OpenReaders;
  readonly reads: Semaphore;
  /** What streams have read to make plain records of. */
  readonly sources: ByteBudget;
}

/** FetchService over the broker. */
export function fetchHandlers(broker: FetchBroker, budgets: BudgetsByKind): UntypedServiceImplementation {
  const { clock, logger } = broker;
  const { total } = budgets.fetchStreams;
  const sources = new ByteBudget(total.limitBytes / SOURCES_SHARE);
  const readers = new OpenReaders({ budgets: [total, sources], clock, logger });
  const context: FetchContext = { broker, budgets, readers, reads: new Semaphore(MAX_READS), sources };
  return {
    Fetch: unary(broker.logger, (request: FetchRequest, call: ServerUnaryCall<FetchRequest, FetchResponse>) =>
      fetchWithinBudget(context, request, call),
    ),
    FetchStream: serverStream(
      broker.logger,
      (request: FetchStreamRequest, call: ServerWritableStream<FetchStreamRequest, StreamMessage>) =>
        fetchStream(context, request, call),
    ),
  };
}

function readBytes(requested: number, byDefault: number, limit: number, format: RecordFormatName): number {
  const bytes = Math.min(requested > 0 ? requested : byDefault, limit);
  return format === 'RECORD_FORMAT_RECORDS' ? Math.min(bytes, MAX_PLAIN_READ_BYTES) : bytes;
}

async function fetchWithinBudget(
  context: FetchContext,
  request: FetchRequest,
  call: ServerUnaryCall<FetchRequest, FetchResponse>,
): Promise<FetchResponse> {
  return await untilTaken(call, context.budgets.unary, context.broker.clock, async (budget, outgoing) => {
    const admit: Admission = (read, bytesOf) =>
      context.reads.run(async () => {
        outgoing.lastRead();
        refuseBeyond(budget);
        return await outgoing.counting(read, bytesOf);
      });
    const fetched = await fetchOnce(context, request, call, admit);
    return await admit(() => toResponse(request, fetched), weightOf);
  });
}

function weightOf({ partitions }: FetchResponse): number {
  let bytes = 0;
  for (const { batches, records, abortedTransactions } of partitions) {
    bytes += batches.length + abortedTransactions.length * ABORTED_WEIGHT_BYTES;
    for (const record of records) bytes += weightOfRecord(record);
  }
  return bytes;
}

function weightOfRecord({ key, value, headers }: RecordMessage): number {
  let bytes = RECORD_WEIGHT_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) bytes += RECORD_WEIGHT_BYTES + header.key.length + (header.value?.length ?? 0);
  return bytes;
}

async function fetchOnce(
  { broker, budgets }: FetchContext,
  request: FetchRequest,
  call: ServerUnaryCall<FetchRequest, FetchResponse>,
  admit: Admission,
): Promise<readonly Fetched[]> {
  return await broker.fetch.fetch(
    {
      positions: request.positions.map((position) => ({ ...position, endOffset: undefined })),
      minBytes: request.minBytes,
      maxWaitMs: request.maxWaitMs ?? DEFAULT_WAIT_MS,
      maxBytes: readBytes(request.maxBytes, DEFAULT_FETCH_BYTES, budgets.unary.streamLimitBytes, request.format),
      isolation: toIsolation(request.isolationLevel, 'read_committed'),
    },
    abortOnCancel(call),
    admit,
  );
}

async function toResponse(request: FetchRequest, fetched: readonly Fetched[]): Promise<FetchResponse> {
  // A single partition's failure is the call's failure: unary callers then need to look in one place only.
  const [only] = fetched;
  if (fetched.length === 1 && only?.error !== undefined) throw only.error;
  const offsets = new Map(request.positions.map((at) => [keyOf(at), at.offset]));
  const partitions: FetchedPartition[] = [];
  let leftBytes = MAX_PLAIN_BYTES;
  for (const part of fetched) {
    const from = offsets.get(keyOf(part)) ?? part.nextOffset;
    const partition = await toMessage(part, from, request.format, leftBytes);
    leftBytes -= weightOf({ partitions: [partition] });
    partitions.push(partition);
  }
  return { partitions };
}

/** @param maxBytes of plain records, about; when there are none left, the partition is to be read on where it was */
async function toMessage(
  part: Fetched,
  fromOffset: number,
  format: RecordFormatName,
  maxBytes: number,
): Promise<FetchedPartition> {
  const message: FetchedPartition = {
    topic: part.topic,
    partition: part.partition,
    highWatermark: part.highWatermark,
    logStartOffset: part.logStartOffset,
    nextOffset: part.nextOffset,
    batches: Buffer.alloc(0),
    records: [],
    lastStableOffset: part.lastStableOffset,
    abortedTransactions: [],
  };
  if (part.error !== undefined) return { ...message, error: toStatusMessage(part.error) };
  if (format !== 'RECORD_FORMAT_RECORDS') {
    return { ...message, batches: Buffer.concat(part.chunks), abortedTransactions: [...part.aborted] };
  }
  if (maxBytes <= 0) return { ...message, nextOffset: fromOffset };
  return { ...message, ...(await plainRecords(part, fromOffset, maxBytes)) };
}

/** A batch that cannot be opened here is an error of its partition, not of the call. */
async function plainRecords(part: Fetched, fromOffset: number, maxBytes: number): Promise<Partial<FetchedPartition>> {
  try {
    return await toRecordMessages(part, fromOffset, maxBytes);
  } catch (error) {
    const failure: LogError = toLogError(error);
    return { error: toStatusMessage(failure), nextOffset: fromOffset };
  }
}

/**
 * Reads on while the client takes what it gets: bytes that were read and not taken yet count against the budgets of the
 * stream, the connection and the broker, and reading waits while one of them is used up.
 */
async function fetchStream(
  { broker, budgets, readers, reads, sources }: FetchContext,
  request: FetchStreamRequest,
  call: ServerWritableStream<FetchStreamRequest, StreamMessage>,
): Promise<void> {
  const connection = budgets.fetchStreams.acquire(call.getPeer());
  const budget = new ByteBudget(budgets.fetchStreams.streamLimitBytes, connection.budget);
  const outgoing = new OutgoingBytes(budget);
  readers.add(outgoing, () => resetStream(http2StreamOf(call)));
  const signal = abortOnCancel(call);
  const plain = request.format === 'RECORD_FORMAT_RECORDS';
  const maxBytes = readBytes(request.maxBytes, DEFAULT_STREAM_BYTES, MAX_STREAM_READ_BYTES, request.format);
  const positions = request.positions.map((position) => ({ ...position, endOffset: position.endOffset }));
  const isolation = toIsolation(request.isolationLevel, 'read_committed');
  const gate: Gate = { reads, readers, signal };
  const command = { positions, maxBytes, isolation };
  const parts = broker.fetch.stream(command, signal, outgoing.admitting(gate, plain ? sources : undefined));
  const messages = plain
    ? plainMessages(parts, positions, { outgoing, sources, admit: outgoing.admitting(gate) })
    : batchMessages(parts, outgoing);
  try {
    for await (const { message, onTaken } of messages) {
      if (signal.aborted) return;
      call.write(message, onTaken);
    }
  } finally {
    readers.remove(outgoing);
    outgoing.close();
    connection.release();
  }
}

interface StreamPart {
  readonly message: StreamMessage;
  /** To be called when the client has taken it. */
  readonly onTaken: () => void;
}

async function* batchMessages(
  parts: AsyncIterable<Fetched>,
  outgoing: OutgoingBytes,
): AsyncGenerator<StreamPart, void, undefined> {
  for await (const part of parts) {
    const message =
      part.error === undefined
        ? { chunked: { ...part, abortedTransactions: part.aborted } }
        : { partition: await toMessage(part, part.nextOffset, 'RECORD_FORMAT_BATCHES', 0) };
    yield { message, onTaken: outgoing.lastRead };
  }
}

function keyOf({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${partition}/${topic}`;
}

interface Making {
  readonly outgoing: OutgoingBytes;
  readonly sources: ByteBudget;
  /** Has a message made when there is room for it. */
  readonly admit: Admission;
}

/** One piece of log may hold more plain records than one message takes: it is then sent in several. */
async function* plainMessages(
  parts: AsyncIterable<Fetched>,
  positions: readonly FetchPosition[],
  { outgoing, sources, admit }: Making,
): AsyncGenerator<StreamPart, void, undefined> {
  const readings = new Map(positions.map((at) => [keyOf(at), { ...at }]));
  for await (const part of parts) {
    const reading = readings.get(keyOf(part));
    const letGo = outgoing.keepLastRead(sources);
    if (reading === undefined) {
      letGo();
      continue;
    }
    do {
      const partition = await admit(
        () => toMessage(part, reading.offset, 'RECORD_FORMAT_RECORDS', MAX_PLAIN_BYTES),
        (message) => weightOf({ partitions: [message] }),
      );
      const end = reading.endOffset;
      if (end !== undefined) partition.records = partition.records.filter((record) => record.offset < end);
      yield { message: { partition }, onTaken: outgoing.lastRead };
      if (partition.error !== undefined) {
        readings.delete(keyOf(part));
        break;
      }
      reading.offset = partition.nextOffset;
    } while (reading.offset < Math.min(part.nextOffset, reading.endOffset ?? Number.POSITIVE_INFINITY));
    letGo();
  }
}
