import { describe, expect, test } from 'vitest';
import { LogError } from '../../src/core/errors.js';
import { fetchStreamResponseCodec } from '../../src/rpc/fetch-codec.js';
import { produceStreamRequestCodec, produceStreamResponseCodec, type Serialized } from '../../src/rpc/hot-codec.js';
import type {
  FetchStreamResponse,
  ProduceStreamRequest,
  ProduceStreamResponse,
  RecordMessage,
} from '../../src/rpc/messages.js';
import { dynamic } from '../../src/rpc/proto.js';
import { toStatusMessage } from '../../src/rpc/status-codec.js';
import { fc } from '../support/properties.js';

const int64 = fc.oneof(
  fc.maxSafeInteger(),
  fc.integer(),
  fc.constantFrom(0, 1, -1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 53 - 1),
);
const offset = fc.oneof(fc.maxSafeNat(), fc.constant(-1));
const int32 = fc.nat(2 ** 31 - 1);
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
const name = fc.oneof(fc.string({ maxLength: 20 }), fc.string({ unit: 'grapheme', maxLength: 10 }));

const record: fc.Arbitrary<RecordMessage> = fc
  .record({ offset, timestampMs: offset, value: bytes })
  .map((fields) => ({ ...fields, headers: [{ key: 'h', value: fields.value }] }));

/** Mostly none, because most messages carry batches. */
const records: fc.Arbitrary<RecordMessage[]> = fc
  .array(record, { maxLength: 2 })
  .map((all) => (all.length === 2 ? all : []));

const produceRequest: fc.Arbitrary<ProduceStreamRequest> = fc
  .record({
    correlationId: int64,
    topic: name,
    topicId: name,
    partition: int32,
    acks: fc.constantFrom(
      'ACKS_UNSPECIFIED' as const,
      'ACKS_NONE' as const,
      'ACKS_WRITTEN' as const,
      'ACKS_DURABLE' as const,
    ),
    batches: fc.array(bytes, { maxLength: 4 }),
    records,
    expectedOffset: fc.option(offset, { nil: undefined }),
    transactionalId: name,
    messageIds: fc.array(name, { maxLength: 2 }),
  })
  .map(({ correlationId, expectedOffset, ...rest }) => ({
    correlationId,
    request: expectedOffset === undefined ? rest : { ...rest, expectedOffset },
  }));

const error = toStatusMessage(new LogError('WRONG_OFFSET', 'no', { metadata: { log_end_offset: 7 } }));

const produceResponse: fc.Arbitrary<ProduceStreamResponse> = fc.record({
  results: fc.array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          correlationId: int64,
          response: fc.record({
            baseOffset: offset,
            lastOffset: offset,
            logAppendTimeMs: offset,
            logStartOffset: offset,
            offsets: fc.array(offset, { maxLength: 3 }),
            duplicateCount: int32,
          }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ correlationId: int64, error: fc.constant(error) }) },
    ),
    { maxLength: 5 },
  ),
});

const fetchResponse: fc.Arbitrary<FetchStreamResponse> = fc.record({
  partition: fc.record({
    topic: name,
    partition: int32,
    highWatermark: offset,
    logStartOffset: offset,
    nextOffset: offset,
    batches: bytes,
    records,
    lastStableOffset: offset,
    abortedTransactions: fc.array(fc.record({ producerId: offset, firstOffset: offset, lastOffset: offset }), {
      maxLength: 3,
    }),
  }),
});

function toBuffer(message: Serialized): Buffer {
  const buffer = Buffer.alloc(message.byteLength);
  message.copy(buffer, 0);
  return buffer;
}

describe('the hand-written codecs equal the proto files', () => {
  test('ProduceStreamRequest', () => {
    const codec = produceStreamRequestCodec(dynamic.produceStream.request);
    fc.assert(
      fc.property(produceRequest, (message) => {
        const ours = toBuffer(codec.encode(message));
        const theirs = dynamic.produceStream.request.encode(message);
        expect(codec.decode(theirs)).toEqual(dynamic.produceStream.request.decode(theirs));
        expect(dynamic.produceStream.request.decode(ours)).toEqual(dynamic.produceStream.request.decode(theirs));
      }),
      { numRuns: 500 },
    );
  });

  test('ProduceStreamResponse', () => {
    const codec = produceStreamResponseCodec(dynamic.produceStream.response);
    fc.assert(
      fc.property(produceResponse, (message) => {
        const ours = toBuffer(codec.encode(message));
        const theirs = dynamic.produceStream.response.encode(message);
        expect(codec.decode(theirs)).toEqual(dynamic.produceStream.response.decode(theirs));
        expect(dynamic.produceStream.response.decode(ours)).toEqual(dynamic.produceStream.response.decode(theirs));
      }),
      { numRuns: 500 },
    );
  });

  test('FetchStreamResponse, with batches in one piece or in chunks', () => {
    const codec = fetchStreamResponseCodec(dynamic.fetchStream.response);
    fc.assert(
      fc.property(fetchResponse, fc.nat(300), (message, cut) => {
        const theirs = dynamic.fetchStream.response.encode(message);
        expect(codec.decode(theirs)).toEqual(dynamic.fetchStream.response.decode(theirs));
        if (message.partition.records.length > 0) return;
        const { batches, ...rest } = message.partition;
        const chunked = { ...rest, chunks: [batches.subarray(0, cut), batches.subarray(cut)] };
        expect(dynamic.fetchStream.response.decode(toBuffer(codec.encode({ chunked })))).toEqual(
          dynamic.fetchStream.response.decode(theirs),
        );
      }),
      { numRuns: 500 },
    );
  });
});

test('offsets that come in several fields, packed and single, are one list', () => {
  const codec = produceStreamResponseCodec(dynamic.produceStream.response);
  const response = Buffer.from([0x2a, 2, 5, 6, 0x28, 7, 0x2a, 0, 0x2a, 3, 0x80, 0x01, 9]);
  const result = Buffer.concat([Buffer.from([0x12, response.length]), response]);
  const bytes = Buffer.concat([Buffer.from([0x0a, result.length]), result]);
  const decoded = codec.decode(bytes);
  expect(decoded.results[0]?.response?.offsets).toEqual([5, 6, 7, 128, 9]);
  expect(decoded).toEqual(dynamic.produceStream.response.decode(bytes));
});

describe('malformed messages', () => {
  const codecs = [
    produceStreamRequestCodec(dynamic.produceStream.request),
    produceStreamResponseCodec(dynamic.produceStream.response),
    fetchStreamResponseCodec(dynamic.fetchStream.response),
  ];

  test('a decoder answers garbage with a message or an error, never with a crash or a hang', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (garbage) => {
        for (const codec of codecs) {
          try {
            codec.decode(Buffer.from(garbage));
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(Error);
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('a length beyond the end of the message is refused', () => {
    const [codec] = codecs;
    const lie = Buffer.from([0x12, 0xff, 0xff, 0xff, 0x7f]);
    expect(() => codec?.decode(lie)).toThrow(LogError);
  });

  test('a packed list that is cut short is refused', () => {
    const [, codec] = codecs;
    expect(() => codec?.decode(Buffer.from([0x0a, 6, 0x12, 4, 0x2a, 2, 0x85, 0x80]))).toThrow(LogError);
  });

  test('a number outside the safe integers is refused, not rounded', () => {
    const [codec] = codecs;
    const tooLarge = Buffer.from([0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    expect(() => codec?.decode(tooLarge)).toThrow(/outside/);
  });
});
