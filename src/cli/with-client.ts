/** Connecting, for the length of one command. */
import type { Client } from '../client/client.js';
import type { Logger } from '../core/logger.js';
import { brokerAddress } from './arguments.js';
import { failureLine } from './failure.js';
import type { CommandContext } from './program.js';

const ignore = (): void => undefined;

function warn(fields: object, message: string): void {
  process.stderr.write(`${failureLine(`warning: ${message} ${JSON.stringify(fields)}`)}\n`);
}

/** What the client would not throw: a record lost with `--acks none`, a producer closed too early. */
const warnings: Logger = { debug: ignore, info: ignore, warn, error: warn };

const CLIENT_ID = 'tidelog-cli';
/** A command is waited for by a person. */
const CONNECT_TIMEOUT_MS = 5_000;

/** Connects, does `work`, disconnects. */
export async function withClient(
  broker: string | undefined,
  { environment }: CommandContext,
  work: (client: Client) => Promise<void>,
): Promise<void> {
  const address = brokerAddress(broker, environment);
  // Loaded here, so that help and wrong usage are answered without it.
  const { connect } = await import('../client/client.js');
  const client = await connect(address, {
    clientId: CLIENT_ID,
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    logger: warnings,
  });
  try {
    await work(client);
  } finally {
    await client.close();
  }
}
