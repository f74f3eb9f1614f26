/** A raw gRPC client over the proto files, without the SDK: what any other language would do. */
import {
  type ChannelOptions,
  Client,
  type ClientUnaryCall,
  credentials,
  type Metadata,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { type RunningBroker, type StartBrokerOptions, startBroker } from '../../../src/broker.js';
import { systemClock } from '../../../src/core/clock.js';
import { silentLogger } from '../../../src/core/logger.js';
import type {
  FetchedPartition,
  FetchRequest,
  FetchResponse,
  ProduceRequest,
  ProduceResponse,
} from '../../../src/rpc/messages.js';
import { PROTO_DIR } from '../../../src/rpc/proto.js';
import { fromServiceError } from '../../../src/rpc/status-codec.js';

const definitions = loadSync(
  ['admin', 'produce', 'fetch', 'group', 'transaction'].map((name) => `tidelog/v1/${name}_service.proto`),
  { includeDirs: [PROTO_DIR], longs: Number, enums: String, defaults: true },
);

function method(service: string, name: string): ServiceDefinition[string] {
  const definition = (definitions[`tidelog.v1.${service}`] as ServiceDefinition)[name];
  if (definition === undefined) throw new Error(`no method ${service}/${name}`);
  return definition;
}

export class RawClient {
  readonly client: Client;

  constructor(address: string, options: ChannelOptions = {}) {
    this.client = new Client(address, credentials.createInsecure(), options);
  }

  /** A unary call; rejects with the LogError that the status carries. */
  call<Response>(service: string, name: string, request: object, metadata?: Metadata): Promise<Response> {
    const { path, requestSerialize, responseDeserialize } = method(service, name);
    return new Promise((resolve, reject) => {
      const done = (error: Error | null, response?: unknown): void => {
        if (error === null) resolve(response as Response);
        else reject(fromServiceError(error));
      };
      if (metadata === undefined)
        this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, done);
      else this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, done);
    });
  }

  /** The request as it goes over the wire. */
  encode(service: string, name: string, request: object): Buffer {
    return method(service, name).requestSerialize(request);
  }

  /** A unary call with a request that is encoded already. */
  callEncoded<Response>(service: string, name: string, request: Buffer): Promise<Response> {
    const { path, responseDeserialize } = method(service, name);
    return new Promise((resolve, reject) => {
      this.client.makeUnaryRequest(
        path,
        (bytes: Buffer) => bytes,
        responseDeserialize,
        request,
        (error, response) => {
          if (error === null) resolve(response as Response);
          else reject(fromServiceError(error));
        },
      );
    });
  }

  /** A unary call whose answer nobody waits for, to be cancelled. */
  start(service: string, name: string, request: object): ClientUnaryCall {
    const { path, requestSerialize, responseDeserialize } = method(service, name);
    return this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, () => undefined);
  }

  createTopic(
    name: string,
    partitionCount = 1,
    configs: Record<string, string> = {},
  ): Promise<{ topic: { topicId: string } }> {
    return this.call('AdminService', 'CreateTopic', { name, partitionCount, configs });
  }

  produce(request: Partial<ProduceRequest>): Promise<ProduceResponse> {
    return this.call('ProduceService', 'Produce', request);
  }

  fetch(request: Partial<FetchRequest> & Pick<FetchRequest, 'positions'>): Promise<FetchResponse> {
    return this.call('FetchService', 'Fetch', request);
  }

  async fetchOne(topic: string, offset: number, more: object = {}): Promise<FetchedPartition> {
    const positions = [{ topic, topicId: '', partition: 0, offset }];
    const { partitions } = await this.fetch({ positions, maxWaitMs: 0, ...more });
    const [only] = partitions;
    if (only === undefined) throw new Error('nothing was fetched');
    return only;
  }

  produceStream(): ReturnType<Client['makeBidiStreamRequest']> {
    const { path, requestSerialize, responseDeserialize } = method('ProduceService', 'ProduceStream');
    return this.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  }

  commitStream(): ReturnType<Client['makeBidiStreamRequest']> {
    const { path, requestSerialize, responseDeserialize } = method('GroupService', 'CommitOffsetsStream');
    return this.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  }

  fetchStream(request: object): ReturnType<Client['makeServerStreamRequest']> {
    const { path, requestSerialize, responseDeserialize } = method('FetchService', 'FetchStream');
    return this.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request);
  }

  close(): void {
    this.client.close();
  }
}

export interface Running {
  readonly broker: RunningBroker;
  readonly raw: RawClient;
  stop(): Promise<void>;
}

/** A broker in memory (or as told) with a raw client. */
export async function run(options: Partial<StartBrokerOptions> = {}): Promise<Running> {
  const broker = await startBroker({
    storage: 'memory',
    logger: silentLogger,
    clock: systemClock,
    // Some records here are years old.
    topicDefaults: { 'retention.ms': -1 },
    ...options,
  });
  const raw = new RawClient(broker.address);
  return {
    broker,
    raw,
    stop: async (): Promise<void> => {
      raw.close();
      await broker.close(1000);
    },
  };
}
