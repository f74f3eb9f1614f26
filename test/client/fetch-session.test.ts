/** A session whose sources come and go, on a broker that the test plays. */
import { expect, test } from 'vitest';
import { Channel } from '../../src/client/channel.js';
import { type Client, connect } from '../../src/client/client.js';
import { FetchSession, type FetchSource } from '../../src/client/fetch-session.js';
import { string, topic } from '../../src/client/serdes.js';
import { systemClock } from '../../src/core/clock.js';
import { LogError } from '../../src/core/errors.js';
import { silentLogger } from '../../src/core/logger.js';
import { systemRandom } from '../../src/core/random.js';
import { toStatusMessage } from '../../src/rpc/status-codec.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';
import { FakeBroker } from './support/fake-broker.js';

const words = topic('words', { value: string() });
const OPTIONS = {
  maxBufferedBytes: 1 << 24,
  fetchBytes: 1 << 20,
  isolation: 'read_committed',
  retryTimeoutMs: Number.MAX_VALUE,
  changing: true,
} as const;

interface Stage extends AsyncDisposable {
  readonly broker: FakeBroker;
  readonly client: Client;
  open(sources: readonly FetchSource[]): FetchSession;
  source(partition: number, start?: number): FetchSource;
  append(partition: number, count?: number): Promise<void>;
}

async function stage(partitions: number): Promise<Stage> {
  const broker = await FakeBroker.start();
  const { topicId } = broker.addTopic('words', partitions);
  const client = await connect(broker.address);
  const channel = new Channel(broker.address, 'test', systemClock);
  const runtime = { clock: systemClock, random: systemRandom, logger: silentLogger };
  const sessions: FetchSession[] = [];
  return {
    broker,
    client,
    open(sources) {
      const session = new FetchSession(sources, OPTIONS, { channel, runtime });
      sessions.push(session);
      return session;
    },
    source: (partition, start = 0) => ({ topic: 'words', topicId, partition, start, end: undefined }),
    async append(partition, count = 1) {
      await using producer = client.producer({ lingerMs: 0 });
      for (let i = 0; i < count; i++) await producer.send(words, { value: 'w', partition });
    },
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.stop(new LogError('CLOSED', 'over'));
      channel.close();
      await client.close();
      await broker.stop();
    },
  };
}

const placeOf = (delivery: Awaited<ReturnType<FetchSession['next']>>): string =>
  `${delivery?.message.partition}@${delivery?.message.nextOffset}`;

test('a session without sources waits for some, and reads what is added', async () => {
  await using s = await stage(2);
  await s.append(1);
  const session = s.open([]);
  const next = session.next();
  session.add([s.source(1)]);
  expect(placeOf(await next)).toBe('1@1');
  const later = session.next();
  session.add([s.source(0)]);
  await s.append(0);
  expect(placeOf(await later)).toBe('0@1');
});

test('removing a source drops what is buffered of it and nothing of others, and several changes share a stream', async () => {
  await using s = await stage(2);
  const sources = [s.source(0), s.source(1)];
  const session = s.open(sources);
  await s.append(0, 3);
  await s.append(1, 3);
  await until(() => s.broker.fetches.length === 1 && s.broker.fetchesOpen === 1, 'it reads');
  expect(placeOf(await session.next())).toBe('0@1');
  session.remove([sources[0] as FetchSource]);
  session.add([s.source(0, 2)]);
  const seen: string[] = [];
  while (seen.filter((place) => place.startsWith('1')).length < 3 || !seen.includes('0@3')) {
    seen.push(placeOf(await session.next()));
  }
  expect(seen.filter((place) => place.startsWith('0'))).toEqual(['0@3']);
  expect(seen.filter((place) => place.startsWith('1'))).toEqual(['1@1', '1@2', '1@3']);
  expect(s.broker.fetches).toHaveLength(2);
  session.remove([sources[0] as FetchSource]);
  expect(s.broker.fetches).toHaveLength(2);
});

test('what one source fails with is told in its turn, and others are read on', async () => {
  await using s = await stage(2);
  await s.append(0);
  s.broker.onFetched = (message) =>
    message.partition === 0 && message.nextOffset === 2
      ? { ...message, error: toStatusMessage(new LogError('OFFSET_OUT_OF_RANGE', 'too late')) }
      : message;
  const failing = s.source(0);
  const session = s.open([failing, s.source(1)]);
  expect(placeOf(await session.next())).toBe('0@1');
  await s.append(0);
  const told = await session.next();
  expect([told?.source, told?.error?.reason]).toEqual([failing, 'OFFSET_OUT_OF_RANGE']);
  await s.append(1);
  expect(placeOf(await session.next())).toBe('1@1');
  expect(s.broker.fetches).toHaveLength(1);
});

test('a session that was stopped takes no more sources', async () => {
  await using s = await stage(1);
  const session = s.open([]);
  session.stop(new LogError('CLOSED', 'over'));
  session.add([s.source(0)]);
  session.remove([s.source(0)]);
  await rejection(session.next(), 'CLOSED');
  expect(s.broker.fetches).toHaveLength(0);
});
