import type { ClientDuplexStream } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { GroupCoordinator } from '../../../src/broker/groups/coordinator.js';
import { type LogError, toLogError } from '../../../src/core/errors.js';
import { MAX_UNANSWERED_COMMITS } from '../../../src/listeners/grpc/commit-stream.js';
import type {
  CommitOffsetsStreamRequest,
  CommitOffsetsStreamResponse,
  CommitOffsetsStreamResult,
} from '../../../src/rpc/group-messages.js';
import { fromServiceError, fromStatusMessage } from '../../../src/rpc/status-codec.js';
import { until } from '../../support/until.js';
import { GROUP, RawGroup, refusals } from './group-support.js';
import { type Running, run } from './support.js';

const TOPIC = 't';
const RECORD = { offset: 0, timestampMs: 0, value: Buffer.from('v'), headers: [] };
const RECORDS = 50;

let running: Running;
let group: RawGroup;

beforeEach(async () => {
  running = await run();
  group = new RawGroup(running.raw);
  await running.raw.createTopic(TOPIC, 2);
  await running.raw.produce({ topic: TOPIC, records: Array.from({ length: RECORDS }, () => RECORD) });
});

afterEach(async () => {
  vi.restoreAllMocks();
  await running.stop();
});

/** A stream with what came of it. */
class Commits {
  readonly call: ClientDuplexStream<object, CommitOffsetsStreamResponse>;
  readonly results: CommitOffsetsStreamResult[] = [];
  /** Results that came together in one message. */
  readonly messages: number[] = [];
  error: LogError | undefined;
  over = false;

  constructor() {
    this.call = running.raw.commitStream() as unknown as ClientDuplexStream<object, CommitOffsetsStreamResponse>;
    this.call.on('data', ({ results }: CommitOffsetsStreamResponse) => {
      this.results.push(...results);
      this.messages.push(results.length);
    });
    this.call.on('error', (error) => {
      this.error = toLogError(fromServiceError(error));
    });
    this.call.on('close', () => {
      this.over = true;
    });
    this.call.on('end', () => {
      this.over = true;
    });
  }

  send(correlationId: number, offset: number, request: Partial<CommitOffsetsStreamRequest['request']> = {}): void {
    const offsets = [{ topic: TOPIC, partition: 0, offset }];
    this.call.write({ correlationId, request: { groupId: GROUP, offsets, ...request } });
  }

  answered(count: number): Promise<void> {
    return until(() => this.results.length >= count, `${count} are answered`);
  }

  ended(): Promise<void> {
    return until(() => this.over, 'the stream is over');
  }
}

async function committedOffset(): Promise<number | undefined> {
  return (await group.committed())[0]?.offset;
}

test('commits are carried out in the order sent, each answered by its correlation id', async () => {
  const commits = new Commits();
  for (let offset = 1; offset <= RECORDS; offset++) commits.send(1000 + offset, offset);
  await commits.answered(RECORDS);
  expect(commits.results.map(({ correlationId }) => correlationId).sort((a, b) => a - b)).toEqual(
    Array.from({ length: RECORDS }, (_, index) => 1001 + index),
  );
  for (const { response } of commits.results) expect(response).toEqual({ refused: [] });
  // Were they carried out in another order, another one would be the last.
  expect(await committedOffset()).toBe(RECORDS);
  // What became durable together is answered together.
  expect(commits.messages.length).toBeLessThan(RECORDS);
  commits.call.end();
  await commits.ended();
});

test('one that is refused does not stop the others', async () => {
  const commits = new Commits();
  commits.send(1, 1);
  commits.send(2, RECORDS + 1);
  commits.send(3, 2, { groupId: '' });
  commits.send(4, 3);
  commits.call.end();
  await commits.ended();
  const byId = new Map(commits.results.map((result) => [result.correlationId, result]));
  expect(byId.get(1)?.response).toEqual({ refused: [] });
  expect(refusals(byId.get(2)?.response ?? { refused: [] })[0]?.reason).toBe('OFFSET_OUT_OF_RANGE');
  const { error } = byId.get(3) ?? {};
  expect(error && fromStatusMessage(error).reason).toBe('INVALID_GROUP_ID');
  expect(byId.get(4)?.response).toEqual({ refused: [] });
  expect(await committedOffset()).toBe(3);
});

test('a message without a request is refused by its correlation id', async () => {
  const commits = new Commits();
  commits.call.write({ correlationId: 7 });
  await commits.answered(1);
  expect(commits.results[0]?.correlationId).toBe(7);
  const { error } = commits.results[0] ?? {};
  expect(error && fromStatusMessage(error).reason).toBe('INVALID_REQUEST');
  commits.call.end();
  await commits.ended();
});

test('a message that does not decode ends the stream with its reason', async () => {
  const path = '/tidelog.v1.GroupService/CommitOffsetsStream';
  const asIs = (bytes: Buffer): Buffer => bytes;
  const call = running.raw.client.makeBidiStreamRequest(path, asIs, asIs);
  const failure = new Promise<LogError>((resolve) => {
    call.on('error', (error) => resolve(toLogError(fromServiceError(error))));
  });
  call.on('data', () => undefined);
  call.write(Buffer.from([0x0a, 0x7f]));
  expect((await failure).reason).toBe('INVALID_REQUEST');
});

test('beyond so many unanswered commits the stream is not read on until some are answered (invariant 21)', async () => {
  const answers: (() => void)[] = [];
  const commit = vi
    .spyOn(GroupCoordinator.prototype, 'commit')
    .mockImplementation(() => new Promise((resolve) => answers.push(() => resolve([]))));
  const commits = new Commits();
  const count = MAX_UNANSWERED_COMMITS + 500;
  for (let id = 1; id <= count; id++) commits.send(id, 1);
  await until(() => commit.mock.calls.length >= MAX_UNANSWERED_COMMITS, 'as many as may be are under way');
  // Whatever else was sent has had the time to come.
  await running.raw.call('AdminService', 'DescribeCluster', {});
  expect(commit.mock.calls.length).toBeLessThanOrEqual(MAX_UNANSWERED_COMMITS + 2);
  await until(() => {
    for (const answer of answers.splice(0)) answer();
    return commits.results.length === count;
  }, 'all are answered');
  commits.call.end();
  await commits.ended();
});

test('a broker that stops answers what it has accepted, then ends the stream', async () => {
  const commits = new Commits();
  for (let offset = 1; offset <= 20; offset++) commits.send(offset, offset);
  await commits.answered(1);
  const closing = running.broker.close(1000);
  await commits.ended();
  expect(commits.error?.reason).toBe('BROKER_DRAINING');
  // Each is either committed, or refused because the broker stops; nothing else.
  for (const { response, error } of commits.results) {
    if (error) expect(fromStatusMessage(error).reason).toBe('BROKER_DRAINING');
    else expect(response).toEqual({ refused: [] });
  }
  await closing;
});
