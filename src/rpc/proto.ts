/** Loads the proto files that the package ships and gives the hot methods their hand-written codecs. */
import { fileURLToPath } from 'node:url';
import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import { fetchStreamResponseCodec } from './fetch-codec.js';
import type { HotCodec } from './hot-codec.js';
import { produceStreamRequestCodec, produceStreamResponseCodec } from './hot-codec.js';

/** The folder of the shipped proto files: `proto/` beside `src/` and `dist/`. */
export const PROTO_DIR: string = fileURLToPath(new URL('../../proto', import.meta.url));

/** The proto files of the services. */
export const SERVICE_FILES: readonly string[] = [
  'admin_service',
  'produce_service',
  'fetch_service',
  'group_service',
  'transaction_service',
].map((name) => `tidelog/v1/${name}.proto`);

const packageDefinition: PackageDefinition = loadSync(
  [...SERVICE_FILES, 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  {
    includeDirs: [PROTO_DIR],
    keepCase: false,
    longs: Number,
    enums: String,
    defaults: true,
    arrays: true,
    objects: true,
  },
);

export type AnyMethod = MethodDefinition<object, object>;

function loadService(name: string): Record<string, AnyMethod> {
  const definition = packageDefinition[`tidelog.v1.${name}`];
  if (definition === undefined || 'format' in definition) throw new Error(`proto/ has no service tidelog.v1.${name}`);
  return { ...definition } as Record<string, AnyMethod>;
}

function method(service: Record<string, AnyMethod>, name: string): AnyMethod {
  const definition = service[name];
  if (definition === undefined) throw new Error(`proto/ has no method ${name}`);
  return definition;
}

/** Encoder and decoder of one message type as the proto files describe it; what the hand-written ones are held against. */
export interface DynamicCodec {
  encode(message: object): Buffer;
  decode(bytes: Buffer): object;
}

const admin = loadService('AdminService');
const produce = loadService('ProduceService');
const fetch = loadService('FetchService');
const group = loadService('GroupService');
const transaction = loadService('TransactionService');

function dynamicCodecs(definition: AnyMethod): { request: DynamicCodec; response: DynamicCodec } {
  return {
    request: { encode: definition.requestSerialize, decode: definition.requestDeserialize },
    response: { encode: definition.responseSerialize, decode: definition.responseDeserialize },
  };
}

/** The codecs of proto-loader for the methods that have hand-written ones. */
export const dynamic: {
  produceStream: { request: DynamicCodec; response: DynamicCodec };
  fetchStream: { request: DynamicCodec; response: DynamicCodec };
} = {
  produceStream: dynamicCodecs(method(produce, 'ProduceStream')),
  fetchStream: dynamicCodecs(method(fetch, 'FetchStream')),
};

// A serializer of the hot path returns an object with the three members of Buffer that grpc-js uses, so that record
// bytes are copied once, straight into the frame. grpc-js's types know only Buffer.
function asGrpc<T>(codec: HotCodec<T>): { serialize(value: object): Buffer; deserialize(bytes: Buffer): object } {
  return {
    serialize: (value) => codec.encode(value as T) as Buffer,
    deserialize: (bytes) => codec.decode(bytes) as object,
  };
}

function withHotCodecs(): void {
  const produceRequest = asGrpc(produceStreamRequestCodec(dynamic.produceStream.request));
  const produceResponse = asGrpc(produceStreamResponseCodec(dynamic.produceStream.response));
  produce.ProduceStream = {
    ...method(produce, 'ProduceStream'),
    requestSerialize: produceRequest.serialize,
    requestDeserialize: produceRequest.deserialize,
    responseSerialize: produceResponse.serialize,
    responseDeserialize: produceResponse.deserialize,
  };
  const fetchResponse = asGrpc(fetchStreamResponseCodec(dynamic.fetchStream.response));
  fetch.FetchStream = {
    ...method(fetch, 'FetchStream'),
    responseSerialize: fetchResponse.serialize,
    responseDeserialize: fetchResponse.deserialize,
  };
}

withHotCodecs();

/** The services, ready for grpc-js servers and clients. */
export const AdminService: ServiceDefinition = admin;
export const ProduceService: ServiceDefinition = produce;
export const FetchService: ServiceDefinition = fetch;
export const GroupService: ServiceDefinition = group;
export const TransactionService: ServiceDefinition = transaction;
