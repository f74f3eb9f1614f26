/** The hand-written codec of what fetch streams answer: see `hot-codec.ts`. */
import { ChunkedMessage, type Fallback, type HotCodec, type Serialized } from './hot-codec.js';
import type { AbortedTransaction, FetchedPartition, FetchStreamResponse } from './messages.js';
import {
  bytesTag,
  intFieldSize,
  stringFieldSize,
  varintSize,
  WireReader,
  writeIntField,
  writeStringField,
  writeVarint,
} from './wire.js';

/** What the broker hands to the encoder: batches still in the chunks that they were read in. */
export interface ChunkedFetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  readonly nextOffset: number;
  readonly chunks: readonly Uint8Array[];
  readonly lastStableOffset: number;
  readonly abortedTransactions: readonly AbortedTransaction[];
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
  const aborted = fetched.abortedTransactions;
  let innerHead =
    stringFieldSize(topicBytes) +
    intFieldSize(fetched.partition) +
    intFieldSize(fetched.highWatermark) +
    intFieldSize(fetched.logStartOffset) +
    intFieldSize(fetched.nextOffset) +
    intFieldSize(fetched.lastStableOffset) +
    (batchBytes === 0 ? 0 : 1 + varintSize(batchBytes));
  for (const one of aborted) innerHead += stringFieldSize(abortedSize(one)) || EMPTY_FIELD_BYTES;
  const inner = innerHead + batchBytes;
  const head = Buffer.allocUnsafe(1 + varintSize(inner) + innerHead);
  head[0] = bytesTag(1);
  let at = writeVarint(head, 1, inner);
  at = writeStringField(head, at, 1, fetched.topic, topicBytes);
  at = writeIntField(head, at, 2, fetched.partition);
  at = writeIntField(head, at, 3, fetched.highWatermark);
  at = writeIntField(head, at, 4, fetched.logStartOffset);
  at = writeIntField(head, at, 5, fetched.nextOffset);
  at = writeIntField(head, at, 9, fetched.lastStableOffset);
  for (const one of aborted) at = writeAborted(head, at, one);
  if (batchBytes > 0) {
    head[at] = bytesTag(6);
    writeVarint(head, at + 1, batchBytes);
  }
  return new ChunkedMessage([head, ...fetched.chunks]);
}

/** Tag and length of an element that is empty: of a list it is not left out. */
const EMPTY_FIELD_BYTES = 2;

function abortedSize({ producerId, firstOffset, lastOffset }: AbortedTransaction): number {
  return intFieldSize(producerId) + intFieldSize(firstOffset) + intFieldSize(lastOffset);
}

function writeAborted(target: Buffer, from: number, aborted: AbortedTransaction): number {
  target[from] = bytesTag(10);
  let at = writeVarint(target, from + 1, abortedSize(aborted));
  at = writeIntField(target, at, 1, aborted.producerId);
  at = writeIntField(target, at, 2, aborted.firstOffset);
  return writeIntField(target, at, 3, aborted.lastOffset);
}

const NO_BYTES: Buffer = Buffer.alloc(0);

/** Most messages have none. */
const NO_ABORTED: AbortedTransaction[] = [];
Object.freeze(NO_ABORTED);

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
    abortedTransactions: NO_ABORTED,
  };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field !== 1) {
      reader.skip();
      continue;
    }
    if (!decodeFetchedPartition(reader.message(), partition)) return undefined;
  }
  return { partition };
}

/** False when it carries plain records or an error. */
function decodeFetchedPartition(reader: WireReader, into: FetchedPartition): boolean {
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) into.topic = reader.string();
    else if (field === 2) into.partition = reader.int();
    else if (field === 3) into.highWatermark = reader.int();
    else if (field === 4) into.logStartOffset = reader.int();
    else if (field === 5) into.nextOffset = reader.int();
    else if (field === 6) into.batches = reader.slice();
    else if (field === 7 || field === 8) return false;
    else if (field === 9) into.lastStableOffset = reader.int();
    else if (field === 10) {
      if (into.abortedTransactions === NO_ABORTED) into.abortedTransactions = [];
      into.abortedTransactions.push(decodeAborted(reader.message()));
    } else reader.skip();
  }
  return true;
}

function decodeAborted(reader: WireReader): AbortedTransaction {
  const aborted: AbortedTransaction = { producerId: 0, firstOffset: 0, lastOffset: 0 };
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) aborted.producerId = reader.int();
    else if (field === 2) aborted.firstOffset = reader.int();
    else if (field === 3) aborted.lastOffset = reader.int();
    else reader.skip();
  }
  return aborted;
}
