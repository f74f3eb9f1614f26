/** The methods that a broker serves, whatever adds them to its server, with the types of their requests. */
import { createRequire } from 'node:module';
import path from 'node:path';
import { Server, type ServiceDefinition } from '@grpc/grpc-js';
import { protoPath as healthProto } from 'grpc-health-check';
import type { Root, Type } from 'protobufjs';
import { vi } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { PROTO_DIR } from '../../src/rpc/proto.js';
import { loadTypes, protoFilesUnder } from '../support/proto-types.js';

export interface ServedMethod {
  /** As it stands in the request: `/tidelog.v1.AdminService/GetTopic`. */
  readonly path: string;
  readonly requestType: Type;
}

/** The health service of the library has a method more than our description of it. */
function allTypes(): Root {
  const reflection = path.join(
    path.dirname(createRequire(import.meta.url).resolve('@grpc/reflection')),
    '../proto/grpc',
  );
  const ours = protoFilesUnder(PROTO_DIR).filter((file) => !file.includes('/health/'));
  return loadTypes([...ours, ...protoFilesUnder(reflection), healthProto]);
}

/** What a broker adds to its gRPC server at its start. */
async function servedServices(): Promise<ServiceDefinition[]> {
  const added = vi.spyOn(Server.prototype, 'addService');
  try {
    const broker = await startBroker({ storage: 'memory' });
    await broker.close();
    return added.mock.calls.map(([service]) => service);
  } finally {
    added.mockRestore();
  }
}

export async function servedMethods(): Promise<ServedMethod[]> {
  const root = allTypes();
  const paths = (await servedServices()).flatMap((service) => Object.values(service).map((method) => method.path));
  return paths.map((each) => {
    const [service, method] = each.slice(1).split('/') as [string, string];
    const definition = root.lookupService(service).methods[method]!;
    definition.resolve();
    return { path: each, requestType: definition.resolvedRequestType! };
  });
}
