import { beforeEach, expect, test } from 'vitest';
import { checkMember, labelOf } from '../../../src/broker/groups/group.js';
import { INTERVAL_MS, keyOf, Rig, recorded, SESSION_MS } from './group-rig.js';

let rig: Rig;

beforeEach(() => {
  rig = new Rig();
  rig.join('m1', { instanceId: 'one' });
  rig.join('m2', { instanceId: 'two' });
  rig.settle();
  rig.nowMs += INTERVAL_MS;
});

test('a static member comes back to its partitions under another id, and nobody else notices', () => {
  const away = rig.leave('m1', true);
  expect([recorded(away), away.changed]).toEqual([['m1'], ['m1']]);
  expect(rig.beat('m1', { epoch: 1, owned: [] }).refusal?.reason).toBe('UNKNOWN_MEMBER_ID');
  expect(checkMember(rig.state, 'm1', 1)?.reason).toBe('UNKNOWN_MEMBER_ID');
  rig.pass(SESSION_MS / 2);
  rig.beat('m2');
  rig.pass(SESSION_MS / 2 - 1);
  const other = rig.member('m2');
  const back = rig.join('m1b', { instanceId: 'one', maxMembers: 1 });
  expect([recorded(back), back.changed]).toEqual([
    ['group', 'm1', 'm1b'],
    ['m1', 'm1b'],
  ]);
  expect(rig.assigned('m1b')).toEqual(['a0', 'a1']);
  expect(rig.member('m1b').assigned.get(keyOf('a0'))!.since).toBe(rig.member('m1b').epoch);
  expect(rig.member('m2')).toBe(other);
  expect(labelOf(rig.state)).toBe('stable');
});

test('a static member that does not come back within its session is gone', () => {
  rig.leave('m1', true);
  rig.pass(SESSION_MS / 2);
  rig.beat('m2');
  rig.pass(SESSION_MS / 2 - 1);
  expect(rig.assigned('m2')).toEqual(['a2', 'a3']);
  expect(rig.pass(1).removed).toMatchObject([{ why: 'session' }]);
  expect(rig.assigned('m2')).toEqual(['a0', 'a1', 'a2', 'a3']);
});

test('a static member is not asked, while it is away, for what goes to another', () => {
  rig.leave('m1', true);
  rig.join('m3');
  rig.join('m4');
  rig.pass(INTERVAL_MS);
  expect([rig.assigned('m1'), rig.revoking('m1')]).toEqual([['a0'], []]);
  expect([...rig.assigned('m3'), ...rig.assigned('m4')]).toEqual(['a1']);
});

test('a static member gives up at once, when it leaves for a while, what it was asked back', () => {
  rig.join('m3');
  rig.join('m4');
  rig.pass(INTERVAL_MS);
  expect(rig.revoking('m1')).toEqual(['a1']);
  rig.leave('m1', true);
  expect([...rig.assigned('m3'), ...rig.assigned('m4')]).toEqual(['a1']);
});

test('a static member cannot be two: the second is refused for as long as the first is there, and told when to ask again', () => {
  const refused = rig.join('twin', { instanceId: 'one' });
  expect(refused.refusal).toMatchObject({ reason: 'UNRELEASED_INSTANCE_ID', retryable: true, retryAfterMs: 1_000 });
  expect(refused).toMatchObject({ records: [], changed: [] });
  expect(rig.state.members.has('twin')).toBe(false);
  rig.pass(SESSION_MS - INTERVAL_MS - 300);
  expect(rig.join('twin', { instanceId: 'one' }).refusal?.retryAfterMs).toBe(300);
  expect(rig.beat('m1').refusal).toBeUndefined();
});

test('a static member that was killed is followed by the one that waits for its name, without a rebalance', () => {
  rig.pass(SESSION_MS - INTERVAL_MS - 100);
  rig.beat('m2');
  const other = rig.member('m2');
  rig.join('again', { instanceId: 'one' });
  const end = rig.pass(100);
  expect(end.removed).toMatchObject([{ member: { memberId: 'm1' }, why: 'session' }]);
  expect(end.changed).toEqual(['m1']);
  expect(checkMember(rig.state, 'm1', 1)?.reason).toBe('UNKNOWN_MEMBER_ID');
  rig.nowMs += 50;
  expect(rig.join('again', { instanceId: 'one' }).refusal).toBeUndefined();
  expect(rig.assigned('again')).toEqual(['a0', 'a1']);
  expect(rig.member('m2')).toBe(other);
});

test('a static member whose successor gave up waiting is gone soon after its session', () => {
  rig.pass(SESSION_MS - INTERVAL_MS - 100);
  rig.beat('m2');
  rig.join('again', { instanceId: 'one' });
  rig.pass(100);
  rig.pass(5_000);
  expect([...rig.state.members.keys()]).toEqual(['m2']);
  expect(rig.assigned('m2')).toEqual(['a0', 'a1', 'a2', 'a3']);
});

test('a static member keeps its name for as long as it is a member', () => {
  expect(rig.join('m1', { instanceId: 'other' }).refusal?.reason).toBe('INVALID_REQUEST');
  expect(rig.join('m1').refusal?.reason).toBe('INVALID_REQUEST');
});

test('a static member leaves for good when it says so', () => {
  rig.leave('m1', true);
  rig.leave('m1');
  expect([...rig.state.members.keys()]).toEqual(['m2']);
});

test('a static member is the only kind that can leave for a while', () => {
  rig.join('m3');
  rig.leave('m3', true);
  expect(rig.state.members.has('m3')).toBe(false);
});
