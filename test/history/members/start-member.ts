/** A recorded member of a group, as both this process and others run it. */
import { type Client, connect, LogError, string, topic } from '../../../src/index.js';
import { randomFrom } from '../../support/random.js';
import { until } from '../../support/until.js';
import { commitsByItself, RecordedMember } from '../recorded/consumer.js';
import type { EventLog } from '../timed-history.js';
import type { MemberOptions } from './member-options.js';

/** Buffered at most, in bytes: little, so that members are often in the midst of something. */
const MAX_BUFFERED_BYTES = 16_384;
const FETCH_BYTES = 4_096;

/** Some records take long: others overtake them where they may, and partitions are asked back meanwhile. */
const SLOW_SHARE = 0.03;
const SLOW_MS = 200;

export interface StartedMember {
  /** Settled when it has ended; rejected when it may not go on. */
  readonly ended: Promise<void>;
  /** Leaves the group in order and closes the connection. */
  leave(): Promise<void>;
}

export type MemberSettings = Omit<MemberOptions, 'eventsFile'>;

/** Waits while the broker is away. */
export async function startMember(settings: MemberSettings, log: EventLog): Promise<StartedMember> {
  const client = await connected(settings);
  const { consumer, ended } = consume(client, settings, log);
  return {
    ended,
    leave: async () => {
      await consumer.close();
      await client.close();
      await ended;
    },
  };
}

async function connected({ address, requestTimeoutMs, process }: MemberSettings): Promise<Client> {
  let client: Client | undefined;
  await until(async () => {
    client = await connect(address, { requestTimeoutMs, clientId: process }).catch(ignoreUnavailable);
    return client !== undefined;
  }, 'a broker answers');
  return client!;
}

function ignoreUnavailable(error: unknown): undefined {
  if (!(error instanceof LogError) || !error.retryable) throw error;
}

function consume(client: Client, settings: MemberSettings, log: EventLog) {
  const { process, group, handling, instanceId, sessionTimeoutMs, autoCommitIntervalMs, maxHandleMs } = settings;
  const topics = settings.topics.map((name) => topic(name, { key: string(), value: string() }));
  const consumer = client.consumer(topics, {
    group,
    from: 'earliest',
    sessionTimeoutMs,
    autoCommit: commitsByItself(handling) ? { intervalMs: autoCommitIntervalMs } : false,
    maxBufferedBytes: MAX_BUFFERED_BYTES,
    fetchBytes: FETCH_BYTES,
    ...(instanceId === undefined ? {} : { instanceId }),
  });
  const random = randomFrom(settings.seed);
  const handleMs = (): number => (random() < SLOW_SHARE ? SLOW_MS : Math.floor(random() * (maxHandleMs + 1)));
  const member = new RecordedMember(consumer, log, { process, group, handling, handleMs });
  return { consumer, ended: member.run() };
}
