/**
 * A broker in memory behind a real gRPC server, for what a real one does not do on demand: answer late, out of order,
 * with errors, or not at all, and drop connections at chosen moments.
 */

import type { ServerHttp2Session } from 'node:http2';
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { baseOffsetOf, maxTimestampOf, nextOffsetOf, recordCountOf, stampBatch } from '../../../src/batch/layout.js';
import { openRecords } from '../../../src/batch/records.js';
import { LogError } from '../../../src/core/errors.js';
import type {
  FetchedPartition,
  FetchStreamRequest,
  FetchStreamResponse,
  InitProducerRequest,
  ListOffsetsRequest,
  ProduceRequest,
  ProduceStreamRequest,
  ProduceStreamResponse,
  ProduceStreamResult,
  TopicMessage,
} from '../../../src/rpc/messages.js';
import { AdminService, FetchService, ProduceService, TransactionService } from '../../../src/rpc/proto.js';
import { toServiceError, toStatusMessage } from '../../../src/rpc/status-codec.js';
import { FakeProducers } from './fake-producers.js';

type ProduceCall = ServerDuplexStream<ProduceStreamRequest, ProduceStreamResponse>;
type FetchCall = ServerWritableStream<FetchStreamRequest, FetchStreamResponse>;

export class FakePartition {
  readonly batches: Buffer[] = [];
  readonly producers: FakeProducers = new FakeProducers();
  startOffset = 0;
  endOffset = 0;

  /**
   * Appends a batch, or finds the one that it repeats. @returns the base offset
   * @throws LogError OUT_OF_ORDER_SEQUENCE_NUMBER, PRODUCER_FENCED
   */
  append(batch: Buffer): number {
    return this.producers.check(batch) ?? this.#append(batch);
  }

  #append(batch: Buffer): number {
    const copy = Buffer.from(batch);
    const baseOffset = this.endOffset;
    stampBatch(copy, 0, baseOffset, 0);
    this.batches.push(copy);
    this.endOffset += recordCountOf(copy, 0);
    this.producers.onAppended(copy);
    return baseOffset;
  }

  /** Loses what was appended from batch number `from` on, as power loss does with what is not durable. */
  lose(from: number): void {
    this.batches.length = from;
    const last = this.batches.at(-1);
    this.endOffset = last === undefined ? 0 : nextOffsetOf(last, 0);
    this.producers.rebuild(this.batches);
  }

  /** Values of all records as text, in log order. */
  async values(): Promise<string[]> {
    const values: string[] = [];
    for (const batch of this.batches) {
      const cursor = await openRecords(batch);
      while (cursor.next()) values.push(cursor.value?.toString() ?? '<null>');
    }
    return values;
  }
}

interface FakeTopic {
  readonly name: string;
  topicId: string;
  readonly partitions: FakePartition[];
}

/** What to do with a produce request instead of appending it. */
export type ProduceFault =
  | { readonly kind: 'error'; readonly error: LogError }
  /** Appends, then cuts the connection before the answer. */
  | { readonly kind: 'cut after append' }
  /** Ends the stream with an error, whatever is unanswered. */
  | { readonly kind: 'end'; readonly error: LogError }
  /** Cuts the connection without appending. */
  | { readonly kind: 'cut' }
  /**
   * Keeps what comes over this stream from here on until `releaseLate`, and cuts the connection once that is `count`
   * requests; default 1.
   */
  | { readonly kind: 'late'; readonly count?: number }
  /** Appends and never answers. */
  | { readonly kind: 'silence' }
  /** Appends and keeps the answer until `releaseHeld`. */
  | { readonly kind: 'hold' };

export interface SeenRequest {
  readonly stream: number;
  readonly partition: number;
  readonly records: number;
  readonly bytes: number;
}

const passOn = (message: FetchedPartition): FetchedPartition => message;

export class FakeBroker {
  readonly topics: Map<string, FakeTopic> = new Map();
  /** Every produce request in order of arrival. */
  readonly requests: SeenRequest[] = [];
  readonly fetches: FetchStreamRequest[] = [];
  readonly calls: string[] = [];
  /** Asked about every produce request. */
  onProduce: (request: ProduceRequest, seen: SeenRequest) => ProduceFault | undefined = () => undefined;
  /** Asked before every message of a fetch stream; may change it. Return 'cut' to drop the connection instead. */
  onFetched: (message: FetchedPartition) => FetchedPartition | 'cut' | 'end' = passOn;
  /** Asked before every unary call; an error is answered instead. */
  onUnary: (method: string) => LogError | undefined = () => undefined;
  /** Answers the calls of AdminService that are about groups and transactions, of which it keeps none. */
  onGroups: (method: string, request: object) => object = () => {
    throw new LogError('GROUP_ID_NOT_FOUND', 'There is no such group.');
  };
  /** Answers the calls about transactions, InitProducer with a transactional id included. */
  onTransaction: (method: string, request: object) => object | Promise<object> = () => {
    throw new LogError('TRANSACTIONAL_ID_NOT_FOUND', 'There are no transactions.');
  };
  maxRequestBytes: number = 8 * 1024 * 1024;
  port = 0;
  producesOpen = 0;
  fetchesOpen = 0;
  /** Fetch streams that wait until the reader takes more. */
  fetchesBlocked = 0;
  #server: Server | undefined;
  #nextStream = 1;
  #topicsMade = 0;
  #held: (() => void)[] = [];
  #late: (() => void)[] = [];
  #nextProducerId = 1_000;
  /** The epoch that the next producer ids begin with. */
  firstEpoch = 0;
  #growth = new Set<() => void>();

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  static async start(): Promise<FakeBroker> {
    const broker = new FakeBroker();
    await broker.listen();
    return broker;
  }

  /** Listens on the port it had before, if any. */
  async listen(): Promise<void> {
    const server = new Server({ 'grpc.max_receive_message_length': 64 * 1024 * 1024 });
    this.#addServices(server);
    this.port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`127.0.0.1:${this.port}`, ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    this.#server = server;
  }

  /** Cuts every connection and stops listening. What was appended stays. */
  async stop(): Promise<void> {
    this.#server?.forceShutdown();
    this.#server = undefined;
    await new Promise((resolve) => setImmediate(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  addTopic(name: string, partitionCount = 1): FakeTopic {
    const topicId = `00000000-0000-4000-8000-${String(this.#topicsMade++).padStart(12, '0')}`;
    const partitions = Array.from({ length: partitionCount }, () => new FakePartition());
    const topic = { name, topicId, partitions };
    this.topics.set(name, topic);
    return topic;
  }

  /** Raises the topic's number of partitions. */
  addPartitions(name: string, partitionCount: number): void {
    const { partitions } = this.#topic(name);
    while (partitions.length < partitionCount) partitions.push(new FakePartition());
  }

  /** Deletes the topic and creates another one of its name, in one step. */
  recreate(name: string, partitionCount = 1): void {
    this.topics.delete(name);
    this.addTopic(name, partitionCount);
  }

  partition(topic: string, partition = 0): FakePartition {
    const found = this.topics.get(topic)?.partitions[partition];
    if (found === undefined) throw unknownTopic(topic);
    return found;
  }

  /** Sends the answers that were held back, last one first when asked. */
  releaseHeld(order: 'first to last' | 'last to first' = 'first to last'): number {
    const held = this.#held;
    this.#held = [];
    if (order === 'last to first') held.reverse();
    for (const release of held) release();
    return held.length;
  }

  /** Appends what was kept of cut connections, as far as the partitions take it. @returns how much was appended */
  releaseLate(): number {
    const late = this.#late;
    this.#late = [];
    const before = this.#appended;
    for (const arrive of late) arrive();
    return this.#appended - before;
  }

  get #appended(): number {
    return [...this.topics.values()].flatMap(({ partitions }) => partitions).reduce((sum, p) => sum + p.endOffset, 0);
  }

  get heldCount(): number {
    return this.#held.length;
  }

  #addServices(server: Server): void {
    const unary = <T extends object>(
      name: string,
      answer: (request: T) => object | Promise<object>,
    ): UntypedServiceImplementation => {
      const answered = async (request: T): Promise<object> => {
        const fault = this.onUnary(name);
        if (fault !== undefined) throw fault;
        return answer(request);
      };
      const handler: handleUnaryCall<T, object> = (call, callback) => {
        this.calls.push(name);
        answered(call.request).then(
          (response) => callback(null, response),
          (error) => callback(toServiceError(error)),
        );
      };
      return { [name]: handler };
    };
    server.addService(AdminService, {
      ...unary('CreateTopic', (request: { name: string; partitionCount: number; validateOnly: boolean }) => {
        if (this.topics.has(request.name)) throw new LogError('TOPIC_ALREADY_EXISTS', 'It exists.');
        const created = this.addTopic(request.name, request.partitionCount || 1);
        if (request.validateOnly) this.topics.delete(request.name);
        return { topic: describe(created) };
      }),
      ...unary('GetTopic', ({ name }: { name: string }) => ({ topic: describe(this.#topic(name)) })),
      ...unary('ListTopics', (request: { pageSize: number; pageToken: string; includeInternal: boolean }) => {
        // Pages of two, whatever was asked for, so that clients must follow the tokens.
        const all = [...this.topics.values()]
          .filter(({ name }) => request.includeInternal || !name.startsWith('__'))
          .sort((a, b) => (a.name < b.name ? -1 : 1));
        const from = request.pageToken === '' ? 0 : Number(request.pageToken);
        const nextPageToken = from + 2 < all.length ? String(from + 2) : '';
        return { topics: all.slice(from, from + 2).map(describe), nextPageToken };
      }),
      ...unary('UpdateTopic', ({ name }: { name: string }) => ({ topic: describe(this.#topic(name)) })),
      ...unary('DeleteRecords', ({ topic }: { topic: string }) => {
        this.#topic(topic);
        return { partitions: [] };
      }),
      ...unary('DeleteTopic', ({ name }: { name: string }) => {
        this.#topic(name);
        this.topics.delete(name);
        return {};
      }),
      ...unary('ListOffsets', (request: ListOffsetsRequest) => this.#listOffsets(request)),
      ...unary('DescribeCluster', () => ({
        clusterId: 'fake',
        nodes: [{ nodeId: 1, host: '127.0.0.1', port: this.port }],
        brokerVersion: '0.0.0',
        maxRequestBytes: this.maxRequestBytes,
      })),
      ...Object.fromEntries(
        [
          'ListGroups',
          'GetGroup',
          'DeleteGroup',
          'ResetGroupOffsets',
          'ListTransactions',
          'GetTransaction',
          'AbortTransaction',
          'ListHangingTransactions',
          'DescribeProducers',
        ].flatMap((name) => Object.entries(unary(name, (request: object) => this.onGroups(name, request)))),
      ),
    });
    server.addService(ProduceService, {
      ...unary('InitProducer', (request: InitProducerRequest) =>
        request.transactionalId === ''
          ? { producerId: this.#nextProducerId++, producerEpoch: this.firstEpoch }
          : this.onTransaction('InitProducer', request),
      ),
      Produce: (_call: unknown, callback: sendUnaryData<object>) =>
        callback(toServiceError(new LogError('INVALID_REQUEST', 'The SDK does not call this.'))),
      ProduceStream: (call: ProduceCall) => this.#produceStream(call),
    });
    server.addService(
      TransactionService,
      Object.assign(
        {},
        ...['AddOffsets', 'Commit', 'Abort'].map((name) =>
          unary(name, (request: object) => this.onTransaction(name, request)),
        ),
      ),
    );
    server.addService(FetchService, {
      Fetch: (_call: unknown, callback: sendUnaryData<object>) =>
        callback(toServiceError(new LogError('INVALID_REQUEST', 'The SDK does not call this.'))),
      FetchStream: (call: FetchCall) => {
        this.#fetchStream(call).catch((error) => call.emit('error', toServiceError(error)));
      },
    });
  }

  #topic(name: string): FakeTopic {
    const topic = this.topics.get(name);
    if (topic === undefined) throw unknownTopic(name);
    return topic;
  }

  #listOffsets(request: ListOffsetsRequest): object {
    const topic = this.#topic(request.topic);
    const wanted = request.partitions.length > 0 ? request.partitions : topic.partitions.map((_, index) => index);
    const offsets = wanted.map((partition) => {
      const log = this.partition(request.topic, partition);
      if (request.position === 'OFFSET_POSITION_EARLIEST') return { partition, offset: log.startOffset };
      if (request.position === 'OFFSET_POSITION_LATEST') return { partition, offset: log.endOffset };
      const found = log.batches.find((batch) => maxTimestampOf(batch, 0) >= request.timestampMs);
      if (found === undefined) return { partition, offset: log.endOffset };
      return { partition, ...firstRecordFrom(found, request.timestampMs) };
    });
    return { offsets };
  }

  #produceStream(call: ProduceCall): void {
    const stream = this.#nextStream++;
    const failed = new Set<string>();
    let keep = 0;
    let kept = 0;
    this.producesOpen++;
    call.on('error', () => {});
    call.on('close', () => {
      this.producesOpen--;
    });
    call.on('end', () => call.end());
    call.on('data', ({ correlationId, request }: ProduceStreamRequest) => {
      const [batch] = request.batches;
      if (batch === undefined) return;
      const seen = { stream, partition: request.partition, records: recordCountOf(batch, 0), bytes: batch.length };
      this.requests.push(seen);
      const lane = `${request.topic}-${request.partition}`;
      const answer = (result: Omit<ProduceStreamResult, 'correlationId'>): void => {
        if (!call.cancelled) call.write({ results: [{ correlationId, ...result }] });
      };
      const fail = (error: LogError): void => {
        failed.add(lane);
        answer({ error: toStatusMessage(error) });
      };
      if (failed.has(lane)) {
        fail(new LogError('PRECEDING_APPEND_FAILED', 'An earlier request failed.'));
        return;
      }
      const fault = keep > 0 ? undefined : this.onProduce(request, seen);
      if (fault?.kind === 'late') keep = fault.count ?? 1;
      if (keep > 0) {
        this.#late.push(() => this.#appendLate(request, batch));
        if (++kept === keep) this.#cut(call);
        return;
      }
      if (fault?.kind === 'error') {
        fail(fault.error);
        return;
      }
      if (fault?.kind === 'end') {
        call.emit('error', toServiceError(fault.error));
        return;
      }
      if (fault?.kind === 'cut') {
        this.#cut(call);
        return;
      }
      let baseOffset: number;
      try {
        const { topicId } = this.#topic(request.topic);
        if (request.topicId !== '' && request.topicId !== topicId) throw recreated(request.topic);
        baseOffset = this.partition(request.topic, request.partition).append(batch);
      } catch (error) {
        fail(error as LogError);
        return;
      }
      for (const grown of this.#growth) grown();
      const lastOffset = baseOffset + seen.records - 1;
      const acknowledge = (): void => {
        if (request.acks === 'ACKS_NONE') return;
        answer({
          response: { baseOffset, lastOffset, logAppendTimeMs: -1, logStartOffset: 0, offsets: [], duplicateCount: 0 },
        });
      };
      if (fault?.kind === 'cut after append') this.#cut(call);
      else if (fault?.kind === 'hold') this.#held.push(acknowledge);
      else if (fault?.kind !== 'silence') acknowledge();
    });
  }

  #appendLate(request: ProduceRequest, batch: Buffer): void {
    try {
      this.partition(request.topic, request.partition).append(batch);
    } catch (error) {
      if (!(error instanceof LogError)) throw error;
    }
  }

  async #fetchStream(call: FetchCall): Promise<void> {
    const { request } = call;
    this.fetches.push(request);
    this.fetchesOpen++;
    let closed = false;
    call.on('error', () => {});
    call.on('close', () => {
      closed = true;
      this.fetchesOpen--;
      for (const grown of this.#growth) grown();
    });
    const next = new Map(request.positions.map(({ partition, offset }) => [partition, offset]));
    for (;;) {
      let waiting = 0;
      let sent = 0;
      for (const { topic, topicId, partition, endOffset } of request.positions) {
        const known = this.#topic(topic);
        if (topicId !== '' && topicId !== known.topicId) throw recreated(topic);
        const log = this.partition(topic, partition);
        const from = next.get(partition) ?? 0;
        if (endOffset !== undefined && endOffset !== null && from >= endOffset) continue;
        if (from < log.startOffset || from > log.endOffset) {
          throw new LogError('OFFSET_OUT_OF_RANGE', `Offset ${from} is out of range.`);
        }
        waiting++;
        const chunk = readFrom(log, from, request.maxBytes, endOffset ?? undefined);
        if (chunk === undefined) continue;
        sent++;
        next.set(partition, chunk.nextOffset);
        const message = this.onFetched({
          topic,
          partition,
          highWatermark: log.endOffset,
          logStartOffset: log.startOffset,
          nextOffset: chunk.nextOffset,
          batches: chunk.batches,
          records: [],
          lastStableOffset: log.endOffset,
          abortedTransactions: [],
        });
        if (message === 'cut') {
          this.#cut(call);
          return;
        }
        if (message === 'end') {
          call.end();
          return;
        }
        if (!call.write({ partition: message })) {
          this.fetchesBlocked++;
          await new Promise<void>((resolve) => {
            const done = (): void => {
              call.off('drain', done);
              call.off('close', done);
              resolve();
            };
            call.once('drain', done);
            call.once('close', done);
          });
          this.fetchesBlocked--;
        }
        if (closed) return;
      }
      if (waiting === 0) {
        call.end();
        return;
      }
      if (sent === 0) await this.#grown();
      if (closed) return;
    }
  }

  #grown(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#growth.delete(done);
        resolve();
      };
      this.#growth.add(done);
    });
  }

  /** Destroys the TCP connection that a call came over. */
  #cut(call: object): void {
    sessionOf(call).destroy();
  }
}

/** grpc-js keeps the http2 stream in a private field of its call object; found by looking for what has a session. */
function sessionOf(call: object): ServerHttp2Session {
  const seen = new Set<object>();
  const search = (value: unknown, depth: number): ServerHttp2Session | undefined => {
    if (typeof value !== 'object' || value === null || depth > 4 || seen.has(value)) return undefined;
    seen.add(value);
    const { session } = value as { session?: ServerHttp2Session };
    if (session !== undefined && typeof session?.destroy === 'function') return session;
    for (const key of ['call', 'stream', 'nextCall']) {
      const found = search((value as Record<string, unknown>)[key], depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const session = search(call, 0);
  if (session === undefined) throw new Error('grpc-js no longer keeps the http2 stream where this test looks for it');
  return session;
}

function unknownTopic(topic: string): LogError {
  return new LogError('UNKNOWN_TOPIC_OR_PARTITION', `There is no topic ${topic}.`, { metadata: { topic } });
}

function recreated(topic: string): LogError {
  return new LogError('UNKNOWN_TOPIC_ID', `Topic ${topic} was recreated.`, { metadata: { topic } });
}

function describe(topic: FakeTopic): TopicMessage {
  return {
    name: topic.name,
    topicId: topic.topicId,
    partitionCount: topic.partitions.length,
    internal: topic.name.startsWith('__'),
    partitions: topic.partitions.map((log, partition) => ({
      partition,
      leaderNodeId: 1,
      logStartOffset: log.startOffset,
      highWatermark: log.endOffset,
      logEndOffset: log.endOffset,
      segmentCount: 1,
      sizeBytes: 0,
      failureReason: '',
    })),
    configs: [{ key: 'segment.bytes', value: '1024', source: 'CONFIG_SOURCE_TOPIC' }],
  };
}

function firstRecordFrom(batch: Buffer, timestampMs: number): { offset: number; timestampMs: number } {
  const cursor = openRecords(batch);
  if (cursor instanceof Promise) throw new Error('The fake broker looks up times in uncompressed batches only.');
  while (cursor.next()) {
    if (cursor.timestampMs >= timestampMs) return { offset: cursor.offset, timestampMs: cursor.timestampMs };
  }
  throw new Error('A batch without a record as late as its maximum timestamp.');
}

function readFrom(
  log: FakePartition,
  from: number,
  maxBytes: number,
  end: number | undefined,
): { batches: Buffer; nextOffset: number } | undefined {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let nextOffset = from;
  for (const batch of log.batches) {
    if (nextOffsetOf(batch, 0) <= from) continue;
    if (end !== undefined && baseOffsetOf(batch, 0) >= end) break;
    if (chunks.length > 0 && bytes + batch.length > maxBytes) break;
    chunks.push(batch);
    bytes += batch.length;
    nextOffset = nextOffsetOf(batch, 0);
  }
  return chunks.length === 0 ? undefined : { batches: Buffer.concat(chunks), nextOffset };
}
