/** Handlers without the rest of a broker. */
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { guardRequests } from '../../../src/listeners/grpc/handlers.js';
import { RawClient } from './support.js';

const MAX_REQUEST_BYTES = 8 * 1024 * 1024;

export interface Served {
  readonly raw: RawClient;
  stop(): Promise<void>;
}

export async function serve(
  services: readonly (readonly [ServiceDefinition, UntypedServiceImplementation])[],
): Promise<Served> {
  const server = new Server();
  for (const [service, handlers] of services) server.addService(guardRequests(service, MAX_REQUEST_BYTES), handlers);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  const raw = new RawClient(`127.0.0.1:${port}`);
  return {
    raw,
    stop: async (): Promise<void> => {
      raw.close();
      server.forceShutdown();
    },
  };
}
