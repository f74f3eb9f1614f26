/**
 * Hand-written codecs of the messages that carry records, equal on the wire to what the proto files describe (a
 * property test holds them together). They make views instead of copies on the way in, and on the way out write record
 * bytes once, straight into the transport's frame. Rare shapes (plain records, message ids, errors) go through the dynamic
 * codec. Here are those of produce streams; `fetch-codec.ts` has those of fetch streams.
 */
import type {
  AcksName,
  ProduceRequest,
  ProduceResponse,
  ProduceStreamRequest,
  ProduceStreamResponse,
  ProduceStreamResult,
} from './messages.js';
import {
  bytesTag,
  intFieldSize,
  packedFieldSize,
  stringFieldSize,
  varintSize,
  varintTag,
  WireReader,
  writeIntField,
  writePackedField,
  writeStringField,
  writeVarint,
} from './wire.js';

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

/** The codec of the rare shapes. */
export interface Fallback {
  encode(message: object): Buffer;
  decode(bytes: Buffer): object;
}

const ACKS: readonly AcksName[] = ['ACKS_UNSPECIFIED', 'ACKS_NONE', 'ACKS_WRITTEN', 'ACKS_DURABLE'];

/** A message of small head bytes followed by byte ranges that are copied at the very end. */
export class ChunkedMessage implements Serialized {
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

export function produceStreamRequestCodec(fallback: Fallback): HotCodec<ProduceStreamRequest> {
  return {
    encode(message: ProduceStreamRequest): Serialized {
      const { records, messageIds } = message.request;
      const isRare = records.length > 0 || messageIds.length > 0;
      return isRare ? fallback.encode(message) : encodeProduceStreamRequest(message);
    },
    decode(bytes: Buffer): ProduceStreamRequest {
      return decodeProduceStreamRequest(bytes) ?? (fallback.decode(bytes) as ProduceStreamRequest);
    },
  };
}

function encodeProduceStreamRequest({ correlationId, request }: ProduceStreamRequest): Serialized {
  const topicBytes = Buffer.byteLength(request.topic);
  const topicIdBytes = Buffer.byteLength(request.topicId);
  const transactionalIdBytes = Buffer.byteLength(request.transactionalId);
  const acks = ACKS.indexOf(request.acks);
  let innerHead =
    stringFieldSize(topicBytes) +
    stringFieldSize(topicIdBytes) +
    intFieldSize(request.partition) +
    intFieldSize(acks) +
    stringFieldSize(transactionalIdBytes);
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
  at = writeStringField(head, at, 8, request.transactionalId, transactionalIdBytes);
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

/** Undefined when the message carries plain records or message ids. */
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
    else if (field === 6 || field === 9) return undefined;
    else if (field === 7) into.expectedOffset = reader.int();
    else if (field === 8) into.transactionalId = reader.string();
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
    intFieldSize(response.logStartOffset) +
    packedFieldSize(response.offsets) +
    intFieldSize(response.duplicateCount)
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
    at = writePackedField(bytes, at, 5, response.offsets);
    at = writeIntField(bytes, at, 6, response.duplicateCount);
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

/** Most answers have none. */
const NO_OFFSETS: number[] = [];
Object.freeze(NO_OFFSETS);

function decodeProduceResponse(reader: WireReader, before: ProduceResponse | undefined): ProduceResponse {
  const response = before ?? {
    baseOffset: 0,
    lastOffset: 0,
    logAppendTimeMs: 0,
    logStartOffset: 0,
    offsets: NO_OFFSETS,
    duplicateCount: 0,
  };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) response.baseOffset = reader.int();
    else if (field === 2) response.lastOffset = reader.int();
    else if (field === 3) response.logAppendTimeMs = reader.int();
    else if (field === 4) response.logStartOffset = reader.int();
    else if (field === 5) {
      if (response.offsets === NO_OFFSETS) response.offsets = [];
      reader.ints(response.offsets);
    } else if (field === 6) response.duplicateCount = reader.int();
    else reader.skip();
  }
  return response;
}
