/** The consumer on a membership that the test plays, over the production broker in memory: what it does with bad news. */
import { expect, test } from 'vitest';
import { Channel } from '../../../src/client/channel.js';
import { Consumer, type ConsumerParts } from '../../../src/client/consumer.js';
import type { ConsumerOptions } from '../../../src/client/consumer-options.js';
import type { NoStartPosition, StartPosition } from '../../../src/client/group/committed-offsets.js';
import type {
  AssignedPartition,
  Membership,
  MembershipListener,
  PositionToCommit,
} from '../../../src/client/group/types.js';
import { systemClock } from '../../../src/core/clock.js';
import { LogError } from '../../../src/core/errors.js';
import { systemRandom } from '../../../src/core/random.js';
import { type RecordingLogger, recordingLogger } from '../../support/recording-logger.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { append, type GroupSetting, startGroup, words } from '../support/consumer-setting.js';

const range = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `p0-${from + i}`);
const gone = new LogError('FENCED_MEMBER_EPOCH', 'The session is over.');

class PlayedMembership implements Membership {
  readonly memberId = 'me';
  readonly memberEpoch = 1;
  readonly held = new Set<AssignedPartition>();
  readonly commits: PositionToCommit[] = [];
  starts = 0;
  /** Whether the session says that it holds what it holds. */
  isAlive = true;
  /** Asked at every commit; may fail it, or hold it. */
  onCommit: (positions: readonly PositionToCommit[]) => Promise<void> | void = () => {};
  readonly #listener: MembershipListener;

  constructor(listener: MembershipListener) {
    this.#listener = listener;
  }

  start(): void {
    this.starts++;
  }
  holds(partition: AssignedPartition): boolean {
    return this.isAlive && this.held.has(partition);
  }
  async commit(positions: readonly PositionToCommit[]): Promise<void> {
    await this.onCommit(positions);
    this.commits.push(...positions);
  }
  async leave(): Promise<void> {
    await this.revoke(...this.held);
  }
  drop(why: LogError): void {
    this.lose(why, ...this.held);
  }
  assign(...partitions: AssignedPartition[]): void {
    for (const partition of partitions) this.held.add(partition);
    this.#listener.assigned(partitions);
  }
  async revoke(...partitions: AssignedPartition[]): Promise<void> {
    await this.#listener.revoked(partitions);
    for (const partition of partitions) this.held.delete(partition);
  }
  lose(why: LogError, ...partitions: AssignedPartition[]): void {
    for (const partition of partitions) this.held.delete(partition);
    this.#listener.lost(partitions, why);
  }
  fail(error: LogError): void {
    this.#listener.failed(error);
  }
}

type Start = { readonly offset: number; readonly commitNow?: boolean } | LogError;

interface Stage extends AsyncDisposable {
  readonly t: GroupSetting;
  readonly consumer: Consumer<string, string>;
  readonly logger: RecordingLogger;
  readonly seen: string[];
  /** The error that the loop ended with. */
  readonly ended: Promise<LogError | undefined>;
  member(): PlayedMembership;
  /** An assignment of the only partition. */
  assignment(epoch: number): AssignedPartition;
  /** Where partitions begin. */
  start: Start;
}

async function stage(
  handle: (value: string) => Promise<void> | void = () => {},
  options: Partial<ConsumerOptions> = {},
): Promise<Stage> {
  const t = await startGroup(1);
  const { topicId } = await t.client.admin.getTopic('words');
  const logger = recordingLogger();
  const runtime = { clock: systemClock, random: systemRandom, logger };
  const channel = new Channel(t.broker.address, 'test', systemClock);
  let member: PlayedMembership | undefined;
  const parts: ConsumerParts = {
    channel,
    runtime,
    open: new Set(),
    working: new Set(),
    throwIfClosed: () => {},
    warnOfMissing: async () => {},
    createMembership: (_wanted, _options, listener) => {
      member = new PlayedMembership(listener);
      return member;
    },
    findStarts: async (partitions) =>
      partitions.map((partition): StartPosition | NoStartPosition =>
        played.start instanceof LogError
          ? { partition, error: played.start, temporary: played.start.reason === 'UNKNOWN_TOPIC_OR_PARTITION' }
          : { partition, commitNow: false, ...played.start },
      ),
    findOffset: async () => 0,
    findCommitted: async () => [],
  };
  const consumer = new Consumer(words, { group: 'g', ...options }, parts);
  const seen: string[] = [];
  const looping = async (): Promise<undefined> => {
    for await (const { value } of consumer) {
      seen.push(value);
      await handle(value);
    }
  };
  const ended = looping().catch((error: LogError) => error);
  const played: Stage = {
    t,
    consumer,
    logger,
    seen,
    ended,
    member: () => member as PlayedMembership,
    assignment: (assignmentEpoch) => ({ topic: 'words', topicId, partition: 0, assignmentEpoch }),
    start: { offset: 0 },
    async [Symbol.asyncDispose]() {
      await consumer.close();
      channel.close();
      await t[Symbol.asyncDispose]();
    },
  };
  return played;
}

const eventsOf = (consumer: Consumer<string, string>): string[] => {
  const events: string[] = [];
  for (const event of ['assigned', 'revoked', 'lost'] as const) consumer.on(event, () => void events.push(event));
  return events;
};

test('once the session says no, nothing more is handed out, also before it is told as lost; the next assignment skips nothing (invariants 7, 10)', async () => {
  let release = (): void => {};
  await using s = await stage(
    () =>
      new Promise((resolve) => {
        release = resolve;
      }),
  );
  await append(s.t.client, 0, 5);
  s.member().assign(s.assignment(1));
  await until(() => s.seen.length === 1, 'a record is in hand');
  s.member().isAlive = false;
  release();
  await append(s.t.client, 0, 5, 5);
  await until(() => s.consumer.position({ topic: 'words', partition: 0 }) === 1, 'the loop waits');
  expect(s.seen).toEqual(range(0, 1));
  s.member().isAlive = true;
  s.member().lose(gone, ...s.member().held);
  s.member().assign(s.assignment(2));
  await until(() => {
    release();
    return s.seen.length === 11;
  }, 'everything is handed out');
  expect(s.seen).toEqual([...range(0, 1), ...range(0, 10)]);
  release();
});

test('a partition that is lost while its record is waited for is told as lost, and nothing of it is committed (invariant 9)', async () => {
  let release = (): void => {};
  await using s = await stage(
    () =>
      new Promise((resolve) => {
        release = resolve;
      }),
  );
  await append(s.t.client, 0, 5);
  const events = eventsOf(s.consumer);
  const assignment = s.assignment(1);
  s.member().assign(assignment);
  await until(() => s.seen.length === 1, 'a record is in hand');
  const revoked = s.member().revoke(assignment);
  s.member().lose(gone, assignment);
  await revoked;
  release();
  await until(() => events.length === 2, 'it is told');
  expect([events, s.member().commits, s.seen]).toEqual([['assigned', 'lost'], [], range(0, 1)]);
});

test('a partition of a deleted topic that is lost while its record is in hand is let go, also when another topic has its name by then', async () => {
  let release = (): void => {};
  await using s = await stage(
    () =>
      new Promise((resolve) => {
        release = resolve;
      }),
  );
  await append(s.t.client, 0, 5);
  const old = s.assignment(1);
  s.member().assign(old);
  await until(() => s.seen.length === 1, 'a record is in hand');
  const revoked = s.member().revoke(old);
  s.member().assign({ ...s.assignment(2), topicId: '00000000-0000-4000-8000-000000000001' });
  const events = eventsOf(s.consumer);
  s.member().lose(gone, old);
  await revoked;
  await until(() => events.includes('lost'), 'it is told as lost');
  release();
});

test('a seek is committed also when a commit of what was before is still on its way', async () => {
  let release = (): void => {};
  await using s = await stage(() => {}, { autoCommit: false });
  await append(s.t.client, 0, 5);
  s.member().assign(s.assignment(1));
  await until(() => s.seen.length === 5, 'all were handed out');
  s.member().onCommit = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  const before = s.consumer.commit();
  s.consumer.pause({ topic: 'words', partition: 0 });
  await s.consumer.seek({ topic: 'words', partition: 0 }, 0);
  s.member().onCommit = () => {};
  const after = s.consumer.commit();
  release();
  await Promise.all([before, after]);
  expect(
    s
      .member()
      .commits.map(({ offset }) => offset)
      .sort(),
  ).toEqual([0, 5]);
});

test('a partition that is revoked while its listener runs is told of in order, and nothing of it is handed out', async () => {
  await using s = await stage();
  await append(s.t.client, 0, 5);
  const events: string[] = [];
  let ready = (): void => {};
  s.consumer.on('assigned', async () => {
    await new Promise<void>((resolve) => {
      ready = resolve;
    });
    events.push('assigned');
  });
  s.consumer.on('revoked', () => void events.push('revoked'));
  s.member().assign(s.assignment(1));
  await until(() => s.consumer.assignment().length === 1, 'it is assigned');
  const revoked = s.member().revoke(s.assignment(1));
  await new Promise((resolve) => setImmediate(resolve));
  expect(events).toEqual([]);
  ready();
  await revoked;
  expect([events, s.seen]).toEqual([['assigned', 'revoked'], []]);
});

test('a commit that fails when a partition goes is logged, and the partition goes', async () => {
  await using s = await stage();
  await append(s.t.client, 0, 2);
  const assignment = s.assignment(1);
  s.member().assign(assignment);
  await until(() => s.seen.length === 2, 'all is read');
  s.member().onCommit = () => {
    throw new LogError('STORAGE_FULL', 'no room');
  };
  await s.member().revoke(assignment);
  expect(s.logger.lines.filter(({ level }) => level === 'warn')).toMatchObject([
    { fields: { reason: 'STORAGE_FULL' } },
  ]);
  expect(s.consumer.assignment()).toEqual([]);
});

test('a start that must be committed is, before the first record is handed out and before the partition goes (invariant 7)', async () => {
  await using s = await stage(undefined, { autoCommit: false });
  await append(s.t.client, 0, 5);
  s.start = { offset: 3, commitNow: true };
  let failures = 2;
  const seenAtCommit: number[] = [];
  s.member().onCommit = () => {
    if (failures-- > 0) throw new LogError('CONNECTION_LOST', 'gone');
    seenAtCommit.push(s.seen.length);
  };
  s.member().assign(s.assignment(1));
  await until(() => s.seen.length === 2, 'it has begun');
  expect([s.member().commits, seenAtCommit]).toMatchObject([[{ offset: 3 }], [0]]);
  await s.member().revoke(...s.member().held);
  s.start = { offset: 4, commitNow: true };
  failures = 1;
  s.member().assign(s.assignment(2));
  await s.member().revoke(...s.member().held);
  expect(s.member().commits).toMatchObject([{ offset: 3 }, { offset: 4 }]);
  expect(s.seen).toHaveLength(2);
});

test('a partition that is asked back goes also when the broker takes no start of it, and others begin all the same', async () => {
  await using s = await stage();
  await append(s.t.client, 0, 5);
  s.start = { offset: 3, commitNow: true };
  let refusals = 0;
  s.member().onCommit = (positions) => {
    if (!positions.some(({ partition }) => partition.partition === 1)) return;
    refusals++;
    throw new LogError('FENCED_MEMBER_EPOCH', 'The start is of another time.');
  };
  const asked = { ...s.assignment(1), partition: 1 };
  s.member().assign(s.assignment(1), asked);
  await until(() => refusals === 2, 'it is tried again while it is held');
  await s.member().revoke(asked);
  await until(() => s.seen.length === 2, 'the other one has begun');
  expect(s.member().commits).toMatchObject([{ partition: { partition: 0 }, offset: 3 }]);
  expect(s.consumer.assignment()).toEqual([{ topic: 'words', partition: 0 }]);
});

test('a partition without a valid start ends the loop with its error, one whose topic is not there is asked for again', async () => {
  await using s = await stage();
  await append(s.t.client, 0, 1);
  s.start = new LogError('UNKNOWN_TOPIC_OR_PARTITION', 'not yet');
  s.member().assign(s.assignment(1));
  await until(() => s.consumer.assignment().length === 1, 'it is assigned');
  s.start = { offset: 0 };
  await until(() => s.seen.length === 1, 'it has begun');
  await s.member().revoke(...s.member().held);
  s.start = new LogError('LOG_TRUNCATED', 'beyond the end', { metadata: { high_watermark: 1 } });
  s.member().assign(s.assignment(2));
  expect(await s.ended).toMatchObject({ reason: 'LOG_TRUNCATED', metadata: { high_watermark: '1' } });
  expect(s.member().held.size).toBe(0);
});

test('what the group refuses the member for ends the loop', async () => {
  await using s = await stage();
  s.member().fail(new LogError('GROUP_MAX_SIZE_REACHED', 'full'));
  expect(await s.ended).toMatchObject({ reason: 'GROUP_MAX_SIZE_REACHED' });
  await rejection(s.consumer.seek({ topic: 'words', partition: 0 }, 0), 'INVALID_REQUEST');
});
