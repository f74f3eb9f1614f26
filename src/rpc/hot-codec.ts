/**
 * Hand-written codecs of the messages that carry records, equal on the wire to what the proto files describe (a
 * property test holds them together). They make views instead of copies on the way in, and on the way out write record
 * bytes once, straight into the transport's frame. Rare shapes (plain records, errors) go through the dynamic codec.
 */
import type {
  AcksName,
  FetchedPartition,
  FetchStreamResponse,
  ProduceRequest,
  ProduceResponse,
  ProduceStreamRequest,
  ProduceStreamResponse,
  ProduceStreamResult,
} from './messages.js';
import { bytesTag, varintSize, varintTag, WireReader, writeVarint } from './wire.js';

/** The members of Buffer that grpc-js uses on a serialized message. */
export interface Serialized {
  readonly length: number;
  readonly byteLength: number;
  copy(target: Buffer, targetStart: number): number;
}

export interface HotCodec<T> {
  encode(message: T): Serialized;
  decode(bytes: Buffer): T;
}

interface Fallback {
  encode(message: object): Buffer;
  decode(bytes: Buffer): object;
}

const ACKS: readonly AcksName[] = ['ACKS_UNSPECIFIED', 'ACKS_NONE', 'ACKS_WRITTEN', 'ACKS_DURABLE'];

/** A message of small head bytes followed by byte ranges that are copied at the very end. */
class ChunkedMessage implements Serialized {
  readonly byteLength: number;
  readonly #parts: readonly Uint8Array[];

  constructor(parts: readonly Uint8Array[]) {
    this.#parts = parts;
    let byteLength = 0;
    for (const part of parts) byteLength += part.length;
    this.byteLength = byteLength;
  }

  get length(): number {
    return this.byteLength;
  }

  copy(target: Buffer, targetStart: number): number {
    let at = targetStart;
    for (const part of this.#parts) {
      target.set(part, at);
      at += part.length;
    }
    return this.byteLength;
  }
}

function stringFieldSize(byteLength: number): number {
  return byteLength === 0 ? 0 : 1 + varintSize(byteLength) + byteLength;
}

function intFieldSize(value: number): number {
  return value === 0 ? 0 : 1 + varintSize(value);
}

function writeIntField(target: Buffer, at: number, field: number, value: number): number {
  if (value === 0) return at;
  target[at] = varintTag(field);
  return writeVarint(target, at + 1, value);
}

function writeStringField(target: Buffer, at: number, field: number, value: string, byteLength: number): number {
  if (byteLength === 0) return at;
  target[at] = bytesTag(field);
  const start = writeVarint(target, at + 1, byteLength);
  target.write(value, start, 'utf8');
  return start + byteLength;
}

export function produceStreamRequestCodec(fallback: Fallback): HotCodec<ProduceStreamRequest> {
  return {
    encode(message: ProduceStreamRequest): Serialized {
      return message.request.records.length > 0 ? fallback.encode(message) : encodeProduceStreamRequest(message);
    },
    decode(bytes: Buffer): ProduceStreamRequest {
      return decodeProduceStreamRequest(bytes) ?? (fallback.decode(bytes) as ProduceStreamRequest);
    },
  };
}

function encodeProduceStreamRequest({ correlationId, request }: ProduceStreamRequest): Serialized {
  const topicBytes = Buffer.byteLength(request.topic);
  const topicIdBytes = Buffer.byteLength(request.topicId);
  const acks = ACKS.indexOf(request.acks);
  let innerHead =
    stringFieldSize(topicBytes) + stringFieldSize(topicIdBytes) + intFieldSize(request.partition) + intFieldSize(acks);
  const expected = request.expectedOffset;
  if (expected !== undefined) innerHead += 1 + varintSize(expected);
  let inner = innerHead;
  for (const batch of request.batches) inner += 1 + varintSize(batch.length) + batch.length;

  const head = Buffer.allocUnsafe(intFieldSize(correlationId) + 1 + varintSize(inner) + innerHead);
  let at = writeIntField(head, 0, 1, correlationId);
  head[at] = bytesTag(2);
  at = writeVarint(head, at + 1, inner);
  at = writeStringField(head, at, 1, request.topic, topicBytes);
  at = writeStringField(head, at, 2, request.topicId, topicIdBytes);
  at = writeIntField(head, at, 3, request.partition);
  at = writeIntField(head, at, 4, acks);
  if (expected !== undefined) {
    head[at] = varintTag(7);
    writeVarint(head, at + 1, expected);
  }
  const parts: Uint8Array[] = [head];
  for (const batch of request.batches) {
    const prefix = Buffer.allocUnsafe(1 + varintSize(batch.length));
    prefix[0] = bytesTag(5);
    writeVarint(prefix, 1, batch.length);
    parts.push(prefix, batch);
  }
  return new ChunkedMessage(parts);
}

/** Undefined when the message carries plain records. */
function decodeProduceStreamRequest(bytes: Buffer): ProduceStreamRequest | undefined {
  const reader = new WireReader(bytes);
  let correlationId = 0;
  let request: ProduceRequest | undefined = emptyProduceRequest();
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) correlationId = reader.int();
    else if (field === 2) {
      request = decodeProduceRequest(reader.message(), request);
      if (request === undefined) return undefined;
    } else reader.skip();
  }
  return { correlationId, request };
}

function emptyProduceRequest(): ProduceRequest {
  return {
    topic: '',
    topicId: '',
    partition: 0,
    acks: 'ACKS_UNSPECIFIED',
    batches: [],
    records: [],
    transactionalId: '',
    messageIds: [],
  };
}

function decodeProduceRequest(reader: WireReader, into: ProduceRequest): ProduceRequest | undefined {
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) into.topic = reader.string();
    else if (field === 2) into.topicId = reader.string();
    else if (field === 3) into.partition = reader.int();
    else if (field === 4) into.acks = ACKS[reader.int()] ?? 'ACKS_UNSPECIFIED';
    else if (field === 5) into.batches.push(reader.slice());
    else if (field === 6) return undefined;
    else if (field === 7) into.expectedOffset = reader.int();
    else reader.skip();
  }
  return into;
}

export function produceStreamResponseCodec(fallback: Fallback): HotCodec<ProduceStreamResponse> {
  return {
    encode(message: ProduceStreamResponse): Serialized {
      const hasErrors = message.results.some((result) => result.error !== undefined);
      return hasErrors ? fallback.encode(message) : encodeProduceResults(message.results);
    },
    decode(bytes: Buffer): ProduceStreamResponse {
      return decodeProduceStreamResponse(bytes) ?? (fallback.decode(bytes) as ProduceStreamResponse);
    },
  };
}

function produceResponseSize(response: ProduceResponse): number {
  return (
    intFieldSize(response.baseOffset) +
    intFieldSize(response.lastOffset) +
    intFieldSize(response.logAppendTimeMs) +
    intFieldSize(response.logStartOffset)
  );
}

function encodeProduceResults(results: readonly ProduceStreamResult[]): Buffer {
  let size = 0;
  for (const result of results) {
    const inner = produceResultSize(result);
    size += 1 + varintSize(inner) + inner;
  }
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const result of results) {
    bytes[at] = bytesTag(1);
    at = writeVarint(bytes, at + 1, produceResultSize(result));
    at = writeIntField(bytes, at, 1, result.correlationId);
    const response = result.response;
    if (response === undefined) continue;
    bytes[at] = bytesTag(2);
    at = writeVarint(bytes, at + 1, produceResponseSize(response));
    at = writeIntField(bytes, at, 1, response.baseOffset);
    at = writeIntField(bytes, at, 2, response.lastOffset);
    at = writeIntField(bytes, at, 3, response.logAppendTimeMs);
    at = writeIntField(bytes, at, 4, response.logStartOffset);
  }
  return bytes;
}

function produceResultSize(result: ProduceStreamResult): number {
  const head = intFieldSize(result.correlationId);
  if (result.response === undefined) return head;
  const response = produceResponseSize(result.response);
  return head + 1 + varintSize(response) + response;
}

/** Undefined when a result carries an error. */
function decodeProduceStreamResponse(bytes: Buffer): ProduceStreamResponse | undefined {
  const reader = new WireReader(bytes);
  const results: ProduceStreamResult[] = [];
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field !== 1) {
      reader.skip();
      continue;
    }
    const result = decodeProduceResult(reader.message());
    if (result === undefined) return undefined;
    results.push(result);
  }
  return { results };
}

function decodeProduceResult(reader: WireReader): ProduceStreamResult | undefined {
  const result: ProduceStreamResult = { correlationId: 0 };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) result.correlationId = reader.int();
    else if (field === 2) result.response = decodeProduceResponse(reader.message(), result.response);
    else if (field === 3) return undefined;
    else reader.skip();
  }
  return result;
}

function decodeProduceResponse(reader: WireReader, before: ProduceResponse | undefined): ProduceResponse {
  const response = before ?? {
    baseOffset: 0,
    lastOffset: 0,
    logAppendTimeMs: 0,
    logStartOffset: 0,
    offsets: [],
    duplicateCount: 0,
  };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) response.baseOffset = reader.int();
    else if (field === 2) response.lastOffset = reader.int();
    else if (field === 3) response.logAppendTimeMs = reader.int();
    else if (field === 4) response.logStartOffset = reader.int();
    else reader.skip();
  }
  return response;
}

/** What the broker hands to the encoder: batches still in the chunks that they were read in. */
export interface ChunkedFetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  readonly nextOffset: number;
  readonly chunks: readonly Uint8Array[];
}

export interface ChunkedFetchStreamResponse {
  readonly chunked: ChunkedFetchedPartition;
}

export function fetchStreamResponseCodec(
  fallback: Fallback,
): HotCodec<FetchStreamResponse | ChunkedFetchStreamResponse> {
  return {
    encode(message: FetchStreamResponse | ChunkedFetchStreamResponse): Serialized {
      return 'chunked' in message ? encodeFetched(message.chunked) : fallback.encode(message);
    },
    decode(bytes: Buffer): FetchStreamResponse {
      return decodeFetchStreamResponse(bytes) ?? (fallback.decode(bytes) as FetchStreamResponse);
    },
  };
}

function encodeFetched(fetched: ChunkedFetchedPartition): Serialized {
  let batchBytes = 0;
  for (const chunk of fetched.chunks) batchBytes += chunk.length;
  const topicBytes = Buffer.byteLength(fetched.topic);
  const innerHead =
    stringFieldSize(topicBytes) +
    intFieldSize(fetched.partition) +
    intFieldSize(fetched.highWatermark) +
    intFieldSize(fetched.logStartOffset) +
    intFieldSize(fetched.nextOffset) +
    (batchBytes === 0 ? 0 : 1 + varintSize(batchBytes));
  const inner = innerHead + batchBytes;
  const head = Buffer.allocUnsafe(1 + varintSize(inner) + innerHead);
  head[0] = bytesTag(1);
  let at = writeVarint(head, 1, inner);
  at = writeStringField(head, at, 1, fetched.topic, topicBytes);
  at = writeIntField(head, at, 2, fetched.partition);
  at = writeIntField(head, at, 3, fetched.highWatermark);
  at = writeIntField(head, at, 4, fetched.logStartOffset);
  at = writeIntField(head, at, 5, fetched.nextOffset);
  if (batchBytes > 0) {
    head[at] = bytesTag(6);
    writeVarint(head, at + 1, batchBytes);
  }
  return new ChunkedMessage([head, ...fetched.chunks]);
}

const NO_BYTES: Buffer = Buffer.alloc(0);

/** Undefined when the message carries plain records or an error. */
function decodeFetchStreamResponse(bytes: Buffer): FetchStreamResponse | undefined {
  const reader = new WireReader(bytes);
  const partition: FetchedPartition = {
    topic: '',
    partition: 0,
    highWatermark: 0,
    logStartOffset: 0,
    nextOffset: 0,
    batches: NO_BYTES,
    records: [],
    lastStableOffset: 0,
    abortedTransactions: [],
  };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field !== 1) {
      reader.skip();
      continue;
    }
    const inner = reader.message();
    for (let part = inner.nextField(); part !== 0; part = inner.nextField()) {
      if (part === 1) partition.topic = inner.string();
      else if (part === 2) partition.partition = inner.int();
      else if (part === 3) partition.highWatermark = inner.int();
      else if (part === 4) partition.logStartOffset = inner.int();
      else if (part === 5) partition.nextOffset = inner.int();
      else if (part === 6) partition.batches = inner.slice();
      else if (part === 7 || part === 8) return undefined;
      else inner.skip();
    }
  }
  return { partition };
}
