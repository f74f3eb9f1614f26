/** What becomes of commits between the call and the broker: coalesced, fenced, repeated. */
import { expect, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import { toStatusMessage } from '../../../src/rpc/status-codec.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { type MemberSetting, news, REQUEST_TIMEOUT_MS, startMember } from './support/group-member.js';
import { TOPIC_ID } from './support/scripted-coordinator.js';

const NONE_REFUSED = { refused: [] };

async function memberOf(epochs: Readonly<Record<number, number>>, epoch = 1): Promise<MemberSetting> {
  const t = await startMember();
  await t.join(epoch, epochs);
  await until(() => t.listener.partitions.size === Object.keys(epochs).length, 'it is assigned');
  return t;
}

test('a commit is acknowledged when the broker has answered it (invariant 8)', async () => {
  await using t = await memberOf({ 0: 3 }, 4);
  let done = false;
  const position = { ...t.position(0, 17), leaderEpoch: 2, metadata: 'note' };
  const committing = t.membership.commit([position]).then(() => {
    done = true;
  });
  const commit = await t.coordinator.next('commit');
  expect(commit.request).toMatchObject({ groupId: 'billing', memberId: 'member-1', memberEpoch: 4, sequence: 1 });
  expect(commit.request.offsets).toEqual([
    {
      topic: 'words',
      topicId: TOPIC_ID,
      partition: 0,
      offset: 17,
      metadata: 'note',
      leaderEpoch: 2,
    },
  ]);
  expect(done).toBe(false);
  commit.answer(NONE_REFUSED);
  await committing;
  await t.membership.commit([]);
  expect(t.coordinator.arrived.commit).toBe(1);
});

test('an unknown leader epoch is not sent', async () => {
  await using t = await memberOf({ 0: 1 });
  const committing = t.membership.commit([t.position(0, 1)]);
  const commit = await t.coordinator.next('commit');
  expect(commit.request.offsets[0]?.leaderEpoch ?? undefined).toBeUndefined();
  commit.answer(NONE_REFUSED);
  await committing;
});

test('commits made while one is under way share the next request, and the last offset of a partition counts', async () => {
  await using t = await memberOf({ 0: 1, 1: 1 });
  const first = t.membership.commit([t.position(0, 1)]);
  const one = await t.coordinator.next('commit');
  const others = [[t.position(0, 2)], [t.position(1, 5)], [t.position(0, 3)]].map((all) => t.membership.commit(all));
  one.answer(NONE_REFUSED);
  await first;
  const two = await t.coordinator.next('commit');
  expect(two.request.sequence).toBe(2);
  expect(two.request.offsets.map(({ partition, offset }) => [partition, offset])).toEqual([
    [0, 3],
    [1, 5],
  ]);
  two.answer(NONE_REFUSED);
  await Promise.all(others);
  expect(t.coordinator.arrived.commit).toBe(2);
});

test('a member of more partitions than a request takes commits them in several, under one epoch', async () => {
  const epochs = Object.fromEntries(Array.from({ length: 12_000 }, (_, partition) => [partition, 1]));
  await using t = await memberOf(epochs);
  const committing = t.membership.commit(Object.keys(epochs).map((partition) => t.position(Number(partition), 7)));
  const first = await t.coordinator.next('commit');
  expect([first.request.sequence, first.request.offsets.length]).toEqual([1, 10_000]);
  const refusal = new LogError('OFFSET_OUT_OF_RANGE', 'beyond the end');
  first.answer({ refused: [{ topic: 'words', partition: 3, error: toStatusMessage(refusal) }] });
  const second = await t.coordinator.next('commit');
  expect([second.request.sequence, second.request.offsets.length]).toEqual([2, 2000]);
  second.answer(NONE_REFUSED);
  await rejection(committing, 'OFFSET_OUT_OF_RANGE');
});

test('a refused partition fails the commits that it is part of, and no others', async () => {
  await using t = await memberOf({ 0: 1, 1: 1 });
  const first = t.membership.commit([t.position(0, 1)]);
  const one = await t.coordinator.next('commit');
  const both = t.membership.commit([t.position(0, 2), t.position(1, 999)]);
  const good = t.membership.commit([t.position(0, 2)]);
  one.answer(NONE_REFUSED);
  await first;
  const error = toStatusMessage(new LogError('OFFSET_OUT_OF_RANGE', 'too far', { metadata: { high_watermark: 10 } }));
  (await t.coordinator.next('commit')).answer({ refused: [{ topic: 'words', partition: 1, error }] });
  expect((await rejection(both, 'OFFSET_OUT_OF_RANGE')).metadata).toEqual({ high_watermark: '10' });
  await good;
});

test('offsets of what is not held any more are refused before anything is sent (invariant 9)', async () => {
  await using t = await memberOf({ 0: 1, 1: 1 });
  const [kept, gone] = [t.position(0, 1), t.position(1, 1)];
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('assigned 0@1 1@1', 'revoked 1@1');
  const inTime = t.membership.commit([gone]);
  (await t.coordinator.next('commit')).answer(NONE_REFUSED);
  await inTime;
  t.listener.settle.shift()?.();
  await until(() => !t.membership.holds(gone.partition), 'it is let go');
  const error = await rejection(t.membership.commit([kept, gone]), 'FENCED_MEMBER_EPOCH');
  expect(error.metadata).toEqual({ group: 'billing', topic: 'words', partition: '1' });
  expect(t.coordinator.arrived.commit).toBe(1);
});

test('a commit that waited while its partition was reset is refused, not sent (invariants 8, 9)', async () => {
  await using t = await memberOf({ 0: 1, 1: 1 });
  const first = t.membership.commit([t.position(1, 1)]);
  const one = await t.coordinator.next('commit');
  const stale = t.membership.commit([t.position(0, 9), t.position(1, 2)]);
  const fresh = t.membership.commit([t.position(1, 3)]);
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 2, 1: 1 }));
  await t.told('assigned 0@1 1@1', 'lost 0@1', 'assigned 0@2');
  one.answer(NONE_REFUSED);
  await first;
  await rejection(stale, 'FENCED_MEMBER_EPOCH');
  const two = await t.coordinator.next('commit');
  expect(two.request).toMatchObject({ memberEpoch: 2, offsets: [{ partition: 1, offset: 3 }] });
  two.answer(NONE_REFUSED);
  await fresh;
});

test('a commit whose stream breaks is repeated with a higher sequence and the newest offsets (invariant 8)', async () => {
  await using t = await memberOf({ 0: 1, 1: 1 });
  const first = t.membership.commit([t.position(0, 1), t.position(1, 1)]);
  const broken = await t.coordinator.next('commit');
  const second = t.membership.commit([t.position(0, 2)]);
  broken.cut();
  await until(() => t.logger.messages('debug').includes('commit will be repeated'), 'it backs off');
  t.clock.skip(100);
  const repeated = await t.coordinator.next('commit');
  expect(repeated.request.sequence).toBe(2);
  expect(repeated.request.offsets.map(({ offset }) => offset)).toEqual([2, 1]);
  repeated.answer(NONE_REFUSED);
  await Promise.all([first, second]);
  expect(t.coordinator.commitStreamsOpened).toBe(2);
});

test('a commit that fails for a while is repeated until its time is over, then fails with the reason', async () => {
  await using t = await memberOf({ 0: 1 });
  const failing = t.membership.commit([t.position(0, 1)]);
  (await t.coordinator.next('commit')).fail(new LogError('STORAGE_FULL', 'no room'));
  await until(() => t.logger.messages('debug').includes('commit will be repeated'), 'it backs off');
  t.clock.skip(1_000);
  await t.coordinator.next('commit');
  t.clock.skip(REQUEST_TIMEOUT_MS);
  await rejection(failing, 'STORAGE_FULL');
});

test('a commit that is never answered fails, and the next one goes over a new stream', async () => {
  await using t = await memberOf({ 0: 1 });
  const silent = t.membership.commit([t.position(0, 1)]);
  const unanswered = await t.coordinator.next('commit');
  t.clock.skip(REQUEST_TIMEOUT_MS);
  await rejection(silent, 'REQUEST_TIMED_OUT');
  await until(() => unanswered.cancelled, 'the stream is given up');
  const next = t.membership.commit([t.position(0, 2)]);
  t.clock.skip(1_000);
  const commit = await t.coordinator.next('commit');
  expect(commit.request.sequence).toBe(2);
  commit.answer(NONE_REFUSED);
  await next;
});

test('a commit that the broker refuses for good is not repeated', async () => {
  await using t = await memberOf({ 0: 1 });
  const refused = t.membership.commit([t.position(0, 1)]);
  (await t.coordinator.next('commit')).fail(new LogError('OFFSET_METADATA_TOO_LARGE', 'too long'));
  await rejection(refused, 'OFFSET_METADATA_TOO_LARGE');
  const next = t.membership.commit([t.position(0, 1)]);
  (await t.coordinator.next('commit')).answer(NONE_REFUSED);
  await next;
});

test('a commit that learns that the member is gone ends the membership', async () => {
  await using t = await memberOf({ 0: 1 });
  const refused = t.membership.commit([t.position(0, 1)]);
  const waiting = t.membership.commit([t.position(0, 2)]);
  (await t.coordinator.next('commit')).fail(new LogError('UNKNOWN_MEMBER_ID', 'no such member'));
  await rejection(refused, 'UNKNOWN_MEMBER_ID');
  await rejection(waiting, 'FENCED_MEMBER_EPOCH');
  await t.told('assigned 0@1', 'lost 0@1');
  expect((await t.coordinator.next('join')).request.memberId).toBe('member-2');
  expect(t.coordinator.arrived.leave).toBe(0);
});

test('commits that wait when the session ends are refused (invariant 9)', async () => {
  await using t = await memberOf({ 0: 1 });
  const failing = t.membership.commit([t.position(0, 1)]);
  (await t.coordinator.next('commit')).fail(new LogError('STORAGE_FULL', 'no room'));
  await until(() => t.logger.messages('debug').includes('commit will be repeated'), 'it backs off');
  (await t.coordinator.next('heartbeat')).fail(new LogError('UNKNOWN_MEMBER_ID', 'no such member'));
  await rejection(failing, 'FENCED_MEMBER_EPOCH');
  expect(t.coordinator.arrived.commit).toBe(1);
});

test('the stream of commits is opened when it is needed and ended with the last member', async () => {
  await using t = await memberOf({ 0: 1 });
  expect(t.coordinator.commitStreamsOpened).toBe(0);
  t.listener.letsGoAtOnce = true;
  for (let offset = 1; offset <= 3; offset++) {
    const committing = t.membership.commit([t.position(0, offset)]);
    (await t.coordinator.next('commit')).answer(NONE_REFUSED);
    await committing;
  }
  expect(t.coordinator.commitStreamsOpened).toBe(1);
  const leaving = t.membership.leave();
  (await t.coordinator.next('leave')).answer({});
  await leaving;
  await until(() => t.coordinator.commitStreamsOpen === 0, 'the stream is ended');
  expect(t.clock.timerCount).toBe(0);
});

test('members of one client share one stream, and closing it fails what is under way', async () => {
  await using t = await memberOf({ 0: 1 });
  const request = (memberId: string) => ({ groupId: 'g', memberId, memberEpoch: 1, sequence: 1, offsets: [] });
  const release = t.commitStreams.use();
  const a = t.commitStreams.send(request('a'));
  const b = t.commitStreams.send(request('b'));
  const commits = [await t.coordinator.next('commit'), await t.coordinator.next('commit')];
  expect(commits.map((commit) => commit.request.memberId)).toEqual(['a', 'b']);
  commits[1]?.answer(NONE_REFUSED);
  await b;
  t.commitStreams.close();
  await rejection(a, 'CLOSED');
  await rejection(t.commitStreams.send(request('c')), 'CLOSED');
  expect(t.coordinator.commitStreamsOpened).toBe(1);
  release();
  release();
});
