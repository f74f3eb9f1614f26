/** What a member of a group does about heartbeats, assignments and their losses, at a coordinator that a test plays. */
import { expect, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import { rejection } from '../../support/rejection.js';
import { until } from '../../support/until.js';
import { INTERVAL_MS, joined, news, noNews, REBALANCE_MS, SESSION_MS, startMember } from './support/group-member.js';

const unavailable = (): LogError => new LogError('COORDINATOR_LOAD_IN_PROGRESS', 'not yet');

test('a member joins under an id of its own, is told what it holds, and sends heartbeats that are held', async () => {
  await using t = await startMember({ assignor: 'range', sessionTimeoutMs: 10_000 });
  expect(t.membership.memberId).toBeUndefined();
  t.membership.start();
  t.membership.start();
  const join = await t.coordinator.next('join');
  expect(join.request).toEqual({
    groupId: 'billing',
    memberId: 'member-1',
    instanceId: '',
    clientId: 'tester',
    subscription: { topics: ['words'], topicPattern: '' },
    assignor: 'range',
    sessionTimeoutMs: 10_000,
    rebalanceTimeoutMs: REBALANCE_MS,
  });
  join.answer(joined(3, { 0: 3, 1: 3 }));
  await t.told('assigned 0@3 1@3');
  expect(t.membership.memberId).toBe('member-1');
  const heartbeat = await t.coordinator.next('heartbeat');
  expect(heartbeat.request).toMatchObject({ memberId: 'member-1', memberEpoch: 3, maxWaitMs: INTERVAL_MS });
  expect(heartbeat.request.owned).toMatchObject([{ topic: 'words', partitions: [0, 1] }]);
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  expect(t.membership.holds({ ...t.position(0, 0).partition })).toBe(true);
  expect(t.membership.holds({ ...t.position(0, 0).partition, assignmentEpoch: 2 })).toBe(false);
  expect(t.coordinator.arrived.join).toBe(1);
});

test('a pattern is sent as one', async () => {
  await using t = await startMember({ subscription: { pattern: 'w.*' } });
  t.membership.start();
  expect((await t.coordinator.next('join')).request.subscription).toEqual({ topics: [], topicPattern: 'w.*' });
});

test('a join is repeated under the same member id until it is answered', async () => {
  await using t = await startMember();
  t.membership.start();
  const lost = await t.coordinator.next('join');
  t.clock.skip(30_000);
  await until(() => lost.cancelled, 'the join is given up');
  t.clock.skip(1_000);
  (await t.coordinator.next('join')).fail(unavailable());
  await until(() => t.logger.messages('debug').length === 2, 'it backs off');
  t.clock.skip(1_000);
  const third = await t.coordinator.next('join');
  expect(third.request.memberId).toBe('member-1');
  third.answer(joined(1, { 0: 1 }));
  await t.told('assigned 0@1');
});

test('the next heartbeat follows an answer at once, but never in a tight loop', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  const first = await t.coordinator.next('heartbeat');
  t.clock.skip(INTERVAL_MS);
  const beforeSecondMs = performance.now();
  first.answer(noNews(1));
  (await t.coordinator.next('heartbeat')).answer(noNews(1));
  await t.coordinator.next('heartbeat');
  expect(performance.now() - beforeSecondMs).toBeGreaterThan(90);
});

test('a partition that is revoked stays held until the listener has let it go, which is reported at once (invariants 9, 10)', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('revoked 1@1');
  const waiting = await t.coordinator.next('heartbeat');
  expect(waiting.request).toMatchObject({ memberEpoch: 2, owned: [{ partitions: [0, 1] }] });
  expect(t.membership.holds(t.position(1, 0).partition)).toBe(true);
  t.listener.settle.shift()?.();
  const report = await t.coordinator.next('heartbeat');
  expect(waiting.cancelled).toBe(true);
  expect(report.request).toMatchObject({ memberEpoch: 2, owned: [{ partitions: [0] }], maxWaitMs: 0 });
  expect(t.membership.holds(t.position(1, 0).partition)).toBe(false);
  report.answer(news(3, { 0: 1, 1: 3 }));
  await t.told('assigned 1@3');
});

test('a partition is revoked once, and another one meanwhile', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1, 1: 1, 2: 1 });
  await t.told('assigned 0@1 1@1 2@1');
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1, 1: 1 }));
  await t.told('revoked 2@1');
  (await t.coordinator.next('heartbeat')).answer(news(3, { 0: 1 }));
  await t.told('revoked 1@1');
  (await t.coordinator.next('heartbeat')).answer(news(4, { 0: 1, 3: 4 }));
  await t.told('assigned 3@4');
  for (const settle of t.listener.settle) settle();
  await until(() => !t.membership.holds(t.position(1, 0).partition), 'they are let go');
  const { clock } = t;
  expect(t.membership.holds(t.position(2, 0).partition)).toBe(false);
  // The deadline of the session, and the heartbeat under way: none of the revocations.
  await until(() => clock.timerCount === 2, 'no timer of a revocation is left');
});

test('a partition that is not let go within the rebalance timeout is lost before the broker puts the member out', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 10_000 });
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('revoked 1@1');
  const waiting = await t.coordinator.next('heartbeat');
  t.clock.skip(9_000);
  await t.told('lost 1@1');
  expect(t.listener.reasons[0]?.reason).toBe('FENCED_MEMBER_EPOCH');
  expect(t.listener.reasons[0]?.message).toContain('rebalanceTimeoutMs');
  const report = await t.coordinator.next('heartbeat');
  expect(waiting.cancelled).toBe(true);
  expect(report.request.owned).toMatchObject([{ partitions: [0] }]);
  t.listener.settle.shift()?.();
  report.answer(noNews(2));
  await t.told();
});

test('a member that cannot report what it has let go is gone before the broker puts it out (invariant 10)', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 10_000 });
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  const first = await t.coordinator.next('heartbeat');
  t.clock.skip(2_000);
  first.answer(noNews(1));
  // The broker may have decided this 2 s ago, right after it had answered the heartbeat before, and counts from there.
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('revoked 1@1');
  await t.coordinator.next('heartbeat');
  t.listener.settle.shift()?.();
  await t.coordinator.next('heartbeat');
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  t.clock.standStill(8_000);
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(false);
  t.clock.skip(0);
  await t.told('lost 0@1');
  expect(t.listener.reasons[0]?.message).toContain('rebalance timeout');
  (await t.coordinator.next('leave')).answer({});
  await t.coordinator.next('join');
});

test('a short rebalance timeout leaves the listener most of it, however long heartbeats are held', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 4_000 });
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  const held = await t.coordinator.next('heartbeat');
  t.clock.skip(INTERVAL_MS);
  held.answer(noNews(1));
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('revoked 1@1');
  t.clock.skip(2_000);
  await t.told();
  t.clock.skip(600);
  await t.told('lost 1@1');
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
});

test('a revocation that follows another one has no longer than that one (invariant 10)', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 10_000 });
  await t.join(1, { 0: 1, 1: 1, 2: 1 });
  await t.told('assigned 0@1 1@1 2@1');
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1, 1: 1 }));
  await t.told('revoked 2@1');
  const second = await t.coordinator.next('heartbeat');
  t.clock.skip(5_000);
  second.answer(noNews(2));
  (await t.coordinator.next('heartbeat')).answer(news(3, { 0: 1 }));
  await t.told('revoked 1@1');
  t.clock.skip(4_000);
  await until(() => t.listener.told.length === 2, 'both are lost');
  expect([...t.listener.told].sort()).toEqual(['lost 1@1', 'lost 2@1']);
});

test('a revocation that the broker has heard the end of sets no limit to the next one', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 10_000 });
  t.listener.letsGoAtOnce = true;
  await t.join(1, { 0: 1, 1: 1 });
  for (let round = 1; round <= 3; round++) {
    const heartbeat = await t.coordinator.next('heartbeat');
    t.clock.skip(INTERVAL_MS);
    heartbeat.answer(news(round * 10, { 0: 1 }));
    (await t.coordinator.next('heartbeat')).answer(news(round * 10 + 1, { 0: 1, 1: round * 10 + 1 }));
    await until(() => t.listener.partitions.get(1)?.assignmentEpoch === round * 10 + 1, 'it is given back');
  }
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  expect(t.listener.told.filter((told) => told.startsWith('lost'))).toEqual([]);
});

test('a partition whose offset was reset is lost and begins anew, even while it is being revoked (invariant 9)', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  const before = t.position(0, 7);
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 2, 1: 1 }));
  await t.told('lost 0@1', 'assigned 0@2');
  expect(t.listener.reasons[0]?.message).toContain('reset');
  expect(t.membership.holds(before.partition)).toBe(false);
  (await t.coordinator.next('heartbeat')).answer(news(3, { 1: 1 }));
  await t.told('revoked 0@2');
  (await t.coordinator.next('heartbeat')).answer(news(4, { 0: 4, 1: 1 }));
  await t.told('lost 0@2', 'assigned 0@4');
  (await t.coordinator.next('heartbeat')).answer(news(5, { 1: 1 }));
  await t.told('revoked 0@4');
  const [endOfFirst, endOfSecond] = t.listener.settle;
  endOfFirst?.();
  (await t.coordinator.next('heartbeat')).answer(news(6, { 1: 1, 2: 6 }));
  await t.told('assigned 2@6');
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  endOfSecond?.();
  await until(() => !t.membership.holds(t.position(0, 0).partition), 'it is let go');
});

test('an answer of an older epoch changes nothing', async () => {
  await using t = await startMember();
  await t.join(5, { 0: 5 });
  await t.told('assigned 0@5');
  const first = await t.coordinator.next('heartbeat');
  t.clock.skip(200);
  first.answer(news(4, {}));
  const heartbeat = await t.coordinator.next('heartbeat');
  expect(heartbeat.request).toMatchObject({ memberEpoch: 5, owned: [{ partitions: [0] }] });
  await t.told();
});

test('the answer to a heartbeat that was given up changes nothing (invariant 10)', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  (await t.coordinator.next('heartbeat')).answer(news(2, { 0: 1 }));
  await t.told('revoked 1@1');
  const old = await t.coordinator.next('heartbeat');
  t.listener.settle.shift()?.();
  const newer = await t.coordinator.next('heartbeat');
  old.answer(news(9, {}));
  newer.answer(news(3, { 0: 1, 2: 3 }));
  await t.told('assigned 2@3');
  expect((await t.coordinator.next('heartbeat')).request.memberEpoch).toBe(3);
});

test('lost answers and a broker that is away cost nothing before the deadline', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  const unanswered = await t.coordinator.next('heartbeat');
  t.clock.skip(INTERVAL_MS + SESSION_MS / 2);
  await until(() => unanswered.cancelled, 'the dead connection is noticed while there is time');
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  t.clock.skip(1_000);
  (await t.coordinator.next('heartbeat')).fail(unavailable());
  await until(() => t.logger.messages('debug').length === 3, 'it backs off');
  t.clock.skip(1_000);
  const answered = await t.coordinator.next('heartbeat');
  t.clock.skip(200);
  answered.answer(noNews(1));
  await t.coordinator.next('heartbeat');
  t.clock.skip(SESSION_MS - 2_000);
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  await t.told();
});

test('the session counts from the sending of the last heartbeat that was answered (invariant 10)', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  const heartbeat = await t.coordinator.next('heartbeat');
  t.clock.skip(20_000);
  heartbeat.answer(noNews(1));
  await t.coordinator.next('heartbeat');
  t.clock.skip(SESSION_MS - 21_000);
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
  t.clock.skip(2_000);
  expect(t.membership.holds(t.position(0, 0).partition)).toBe(false);
  await t.told('lost 0@1');
});

test('past the deadline everything is lost once, and the member leaves its old self before it joins anew', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  await t.coordinator.next('heartbeat');
  t.clock.skip(SESSION_MS);
  await t.told('lost 0@1');
  expect(t.listener.reasons[0]?.message).toContain(`${SESSION_MS} ms`);
  expect(t.membership.memberId).toBeUndefined();
  const leave = await t.coordinator.next('leave');
  expect(leave.request).toEqual({ groupId: 'billing', memberId: 'member-1', temporary: false });
  leave.answer({});
  const join = await t.coordinator.next('join');
  expect(join.request.memberId).toBe('member-2');
  join.answer(joined(7, { 0: 7 }));
  await t.told('assigned 0@7');
  expect(t.logger.messages('warn')).toHaveLength(1);
});

test('a process that stood still knows that it owns nothing before any timer has told it (invariants 9, 10)', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  const heartbeat = await t.coordinator.next('heartbeat');
  const position = t.position(0, 5);
  t.clock.standStill(SESSION_MS);
  expect(t.membership.holds(position.partition)).toBe(false);
  expect(t.membership.memberId).toBeUndefined();
  await rejection(t.membership.commit([position]), 'FENCED_MEMBER_EPOCH');
  expect(t.coordinator.arrived.commit).toBe(0);
  // An answer that arrives now is too late, whatever it says.
  heartbeat.answer(noNews(1));
  await t.told('lost 0@1');
  await t.coordinator.next('leave');
});

test.each(['UNKNOWN_MEMBER_ID', 'GROUP_ID_NOT_FOUND'] as const)(
  'a member that the broker answers with %s has lost everything and joins anew at once',
  async (reason) => {
    await using t = await startMember();
    await t.join(1, { 0: 1 });
    await t.told('assigned 0@1');
    (await t.coordinator.next('heartbeat')).fail(new LogError(reason, 'no such member'));
    await t.told('lost 0@1');
    expect(t.listener.reasons[0]?.reason).toBe(reason);
    expect((await t.coordinator.next('join')).request.memberId).toBe('member-2');
    expect(t.coordinator.arrived.leave).toBe(0);
  },
);

test('a broker that puts members out as soon as they join is not stormed', async () => {
  await using t = await startMember();
  await t.join(1, {});
  (await t.coordinator.next('heartbeat')).fail(new LogError('UNKNOWN_MEMBER_ID', 'no such member'));
  (await t.coordinator.next('join')).answer(joined(1, {}));
  (await t.coordinator.next('heartbeat')).fail(new LogError('UNKNOWN_MEMBER_ID', 'no such member'));
  await until(() => t.logger.messages('warn').length === 2, 'it was put out twice');
  const putOutAtMs = performance.now();
  await t.coordinator.next('join');
  expect(performance.now() - putOutAtMs).toBeGreaterThan(50);
});

test.each([
  'INVALID_GROUP_ID',
  'GROUP_MAX_SIZE_REACHED',
  'UNSUPPORTED_ASSIGNOR',
  'INVALID_REGULAR_EXPRESSION',
] as const)('a join that is refused with %s is not repeated', async (reason) => {
  await using t = await startMember();
  t.membership.start();
  (await t.coordinator.next('join')).fail(new LogError(reason, 'never'));
  await t.told('failed');
  expect(t.listener.reasons[0]?.reason).toBe(reason);
  expect(t.clock.timerCount).toBe(0);
  t.membership.start();
  await t.coordinator.next('join');
});

test('a join that a full disk refuses is warned of once and repeated; what passes by itself is not warned of', async () => {
  await using t = await startMember();
  t.membership.start();
  (await t.coordinator.next('join')).fail(unavailable());
  await until(() => t.logger.messages('debug').length === 1, 'it backs off');
  for (const refusals of [1, 2]) {
    t.clock.skip(1_000);
    (await t.coordinator.next('join')).fail(new LogError('STORAGE_FULL', 'the disk is full'));
    await until(() => t.logger.lines.length === 1 + refusals, 'it backs off again');
  }
  expect(t.logger.messages('warn')).toEqual(['the group cannot be joined for now: that is tried again']);
  t.clock.skip(1_000);
  (await t.coordinator.next('join')).answer(joined(1, { 0: 1 }));
  await t.told('assigned 0@1');
});

test('a member whose heartbeat is refused for good has lost everything and says so', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  (await t.coordinator.next('heartbeat')).fail(new LogError('STORAGE_ERROR', 'the disk is broken'));
  await t.told('lost 0@1', 'failed');
  expect(t.listener.reasons.map(({ reason }) => reason)).toEqual(['STORAGE_ERROR', 'STORAGE_ERROR']);
  // So that others need not wait for the end of its session.
  expect((await t.coordinator.next('leave')).request.memberId).toBe('member-1');
});

test('a static member waits until its old session has ended', async () => {
  await using t = await startMember({ instanceId: 'worker-1' });
  t.membership.start();
  const taken = await t.coordinator.next('join');
  expect(taken.request.instanceId).toBe('worker-1');
  taken.fail(new LogError('UNRELEASED_INSTANCE_ID', 'another one', { retryAfterMs: 700 }));
  await until(() => t.logger.messages('warn').length === 1, 'it waits');
  t.clock.skip(500);
  expect(t.coordinator.arrived.join).toBe(1);
  t.clock.skip(200);
  (await t.coordinator.next('join')).answer(joined(4, { 0: 4 }));
  await t.told('assigned 0@4');
});

test.each([
  [undefined, false],
  ['worker-1', true],
])(
  'a member with the instance id %s that leaves lets everything go first, then tells the broker',
  async (instanceId, temporary) => {
    await using t = await startMember({ instanceId });
    await t.join(1, { 0: 1, 1: 1 });
    await t.told('assigned 0@1 1@1');
    await t.coordinator.next('heartbeat');
    let left = false;
    const leaving = t.membership.leave().then(() => {
      left = true;
    });
    await t.told('revoked 0@1 1@1');
    expect(t.membership.holds(t.position(0, 0).partition)).toBe(true);
    expect(t.coordinator.arrived.leave).toBe(0);
    t.listener.settle.shift()?.();
    const leave = await t.coordinator.next('leave');
    expect(leave.request).toEqual({ groupId: 'billing', memberId: 'member-1', temporary });
    expect(t.membership.holds(t.position(0, 0).partition)).toBe(false);
    expect(left).toBe(false);
    leave.answer({});
    await leaving;
    await t.membership.leave();
    expect(t.membership.memberId).toBeUndefined();
    expect(t.clock.timerCount).toBe(0);
    await t.told();
  },
);

test('a member that leaves goes on with its heartbeats, takes nothing new, and may join anew', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1, 1: 1 });
  await t.told('assigned 0@1 1@1');
  const held = await t.coordinator.next('heartbeat');
  const leaving = t.membership.leave();
  await t.told('revoked 0@1 1@1');
  t.membership.start();
  held.answer(news(2, { 0: 1, 1: 2, 2: 2 }));
  await t.told('lost 1@1');
  expect((await t.coordinator.next('heartbeat')).request.owned).toMatchObject([{ partitions: [0] }]);
  t.listener.settle.shift()?.();
  (await t.coordinator.next('leave')).answer({});
  await leaving;
  const join = await t.coordinator.next('join');
  expect(join.request.memberId).toBe('member-2');
  join.answer(joined(5, { 0: 5 }));
  await t.told('assigned 0@5');
});

test('leaving ends although nobody lets go and no broker answers', async () => {
  await using t = await startMember({ rebalanceTimeoutMs: 10_000 });
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  await t.coordinator.next('heartbeat');
  const leaving = t.membership.leave();
  t.clock.skip(9_000);
  await t.told('revoked 0@1', 'lost 0@1');
  const leave = await t.coordinator.next('leave');
  t.clock.skip(3_000);
  await leaving;
  await until(() => leave.cancelled, 'it is given up');
  expect(t.clock.timerCount).toBe(0);
});

test('a member that is joining leaves what it may have joined', async () => {
  await using t = await startMember();
  await t.membership.leave();
  t.membership.start();
  const join = await t.coordinator.next('join');
  const leaving = t.membership.leave();
  (await t.coordinator.next('leave')).fail(new LogError('UNKNOWN_MEMBER_ID', 'it never joined'));
  await leaving;
  expect(join.cancelled).toBe(true);
  join.answer(joined(1, { 0: 1 }));
  await t.told();
});

test('a member that is dropped has lost everything at once, tells the broker, and may join anew', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  const heartbeat = await t.coordinator.next('heartbeat');
  const why = new LogError('REQUEST_TIMED_OUT', 'the handler is stuck');
  t.membership.drop(why);
  expect(t.listener.told.splice(0)).toEqual(['lost 0@1']);
  expect(t.listener.reasons).toEqual([why]);
  expect(t.membership.memberId).toBeUndefined();
  t.membership.drop(why);
  await until(() => heartbeat.cancelled, 'the heartbeat is given up');
  t.membership.start();
  const leave = await t.coordinator.next('leave');
  expect(t.coordinator.arrived.join).toBe(1);
  leave.answer({});
  (await t.coordinator.next('join')).answer(joined(3, { 0: 3 }));
  await t.told('assigned 0@3');
  expect(t.coordinator.arrived.leave).toBe(1);
});

test('a member that is dropped while it leaves has lost what it had not let go', async () => {
  await using t = await startMember();
  await t.join(1, { 0: 1 });
  await t.told('assigned 0@1');
  const leaving = t.membership.leave();
  t.membership.drop(new LogError('CLOSED', 'enough'));
  await t.told('revoked 0@1', 'lost 0@1');
  (await t.coordinator.next('leave')).answer({});
  await leaving;
});
