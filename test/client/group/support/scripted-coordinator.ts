/**
 * A group coordinator that does nothing by itself, behind a real gRPC server: each call waits until the test answers it,
 * so that answers can come late, never, or twice.
 */
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { LogError } from '../../../../src/core/errors.js';
import type {
  AssignedPartitionMessage,
  CommitOffsetsRequest,
  CommitOffsetsResponse,
  CommitOffsetsStreamRequest,
  CommitOffsetsStreamResponse,
  FetchOffsetsRequest,
  FetchOffsetsResponse,
  HeartbeatRequest,
  HeartbeatResponse,
  JoinGroupRequest,
  JoinGroupResponse,
  LeaveGroupRequest,
  LeaveGroupResponse,
} from '../../../../src/rpc/group-messages.js';
import { GroupService } from '../../../../src/rpc/proto.js';
import { toServiceError, toStatusMessage } from '../../../../src/rpc/status-codec.js';
import { until } from '../../../support/until.js';

interface Exchanges {
  readonly join: [JoinGroupRequest, JoinGroupResponse];
  readonly heartbeat: [HeartbeatRequest, HeartbeatResponse];
  readonly leave: [LeaveGroupRequest, LeaveGroupResponse];
  readonly commit: [CommitOffsetsRequest, CommitOffsetsResponse];
  readonly fetch: [FetchOffsetsRequest, FetchOffsetsResponse];
}
type Kind = keyof Exchanges;

/** A call that waits for its answer. */
export interface ScriptedCall<Request, Response> {
  readonly request: Request;
  /** Whether the client has given it up. */
  readonly cancelled: boolean;
  answer(response: Response): void;
  fail(error: LogError): void;
  /** Only of a commit: the stream that it came over breaks. */
  cut(): void;
}

type CallOf<K extends Kind> = ScriptedCall<Exchanges[K][0], Exchanges[K][1]>;
type CommitCall = ServerDuplexStream<CommitOffsetsStreamRequest, CommitOffsetsStreamResponse>;

export class ScriptedCoordinator {
  /** How many of each kind have arrived. */
  readonly arrived: Record<Kind, number> = { join: 0, heartbeat: 0, leave: 0, commit: 0, fetch: 0 };
  commitStreamsOpen = 0;
  commitStreamsOpened = 0;
  port = 0;
  readonly #waiting: { [K in Kind]: CallOf<K>[] } = { join: [], heartbeat: [], leave: [], commit: [], fetch: [] };
  readonly #server = new Server();

  static async start(): Promise<ScriptedCoordinator> {
    const coordinator = new ScriptedCoordinator();
    coordinator.#addService();
    coordinator.port = await new Promise<number>((resolve, reject) => {
      coordinator.#server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(port),
      );
    });
    return coordinator;
  }

  /** The next call of its kind, in the order of arrival; waits for one. */
  async next<K extends Kind>(kind: K): Promise<CallOf<K>> {
    const waiting: CallOf<K>[] = this.#waiting[kind];
    await until(() => waiting.length > 0, `a ${kind} arrives`);
    return waiting.shift() as CallOf<K>;
  }

  stop(): void {
    this.#server.forceShutdown();
  }

  #addService(): void {
    const unary =
      <K extends Kind>(kind: K) =>
      (call: ServerUnaryCall<Exchanges[K][0], Exchanges[K][1]>, callback: sendUnaryData<Exchanges[K][1]>): void => {
        this.#arrive(kind, {
          request: call.request,
          get cancelled() {
            return call.cancelled;
          },
          answer: (response) => callback(null, response),
          fail: (error) => callback(toServiceError(error)),
          cut: () => call.emit('error', new Error('only the stream of commits can be cut')),
        });
      };
    this.#server.addService(GroupService, {
      JoinGroup: unary('join'),
      Heartbeat: unary('heartbeat'),
      LeaveGroup: unary('leave'),
      CommitOffsets: unary('commit'),
      FetchOffsets: unary('fetch'),
      CommitOffsetsStream: (call: CommitCall) => this.#commitStream(call),
    });
  }

  #commitStream(call: CommitCall): void {
    this.commitStreamsOpen++;
    this.commitStreamsOpened++;
    call.on('error', () => {});
    call.on('end', () => call.end());
    call.on('close', () => {
      this.commitStreamsOpen--;
    });
    call.on('data', ({ correlationId, request }: CommitOffsetsStreamRequest) => {
      this.#arrive('commit', {
        request,
        get cancelled() {
          return call.cancelled;
        },
        answer: (response) => call.write({ results: [{ correlationId, response }] }),
        fail: (error) => call.write({ results: [{ correlationId, error: toStatusMessage(error) }] }),
        cut: () => call.end(),
      });
    });
  }

  #arrive<K extends Kind>(kind: K, call: CallOf<K>): void {
    this.arrived[kind]++;
    const waiting: CallOf<K>[] = this.#waiting[kind];
    waiting.push(call);
  }
}

export const TOPIC_ID = '00000000-0000-4000-8000-000000000001';

/** Partitions of the topic `words`, each given at its epoch. */
export function assignment(epochs: Readonly<Record<number, number>>): { partitions: AssignedPartitionMessage[] } {
  const partitions = Object.entries(epochs).map(([partition, assignmentEpoch]) => ({
    topic: 'words',
    topicId: TOPIC_ID,
    partition: Number(partition),
    assignmentEpoch,
  }));
  return { partitions };
}
