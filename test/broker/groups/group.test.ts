import { beforeEach, describe, expect, test } from 'vitest';
import {
  checkMember,
  labelOf,
  nextDeadlineMs,
  renewSessions,
  restoreGroup,
  transition,
  wasAddedLater,
} from '../../../src/broker/groups/group.js';
import { A, B, INTERVAL_MS, keyOf, named, REBALANCE_MS, Rig, recorded, SESSION_MS, TOPICS } from './group-rig.js';
import { topicIdOf, viewOf } from './simulation/topics.js';

let rig: Rig;

beforeEach(() => {
  rig = new Rig();
});

describe('a hand-over', () => {
  beforeEach(() => {
    rig.join('m1');
    rig.join('m2');
  });

  test('asks back at once, and gives only when the old owner has said that it let go (invariant 10)', () => {
    expect(rig.assigned('m1')).toEqual(['a0', 'a1', 'a2', 'a3']);
    rig.pass(INTERVAL_MS);
    expect([rig.assigned('m1'), rig.revoking('m1'), rig.assigned('m2')]).toEqual([['a0', 'a1'], ['a2', 'a3'], []]);
    expect(labelOf(rig.state)).toBe('reconciling');
    rig.beat('m1', { owned: ['a0', 'a1', 'a3'] });
    expect([rig.revoking('m1'), rig.assigned('m2')]).toEqual([['a3'], ['a2']]);
    rig.beat('m1');
    expect([rig.revoking('m1'), rig.assigned('m2')]).toEqual([[], ['a2', 'a3']]);
    expect(labelOf(rig.state)).toBe('stable');
  });

  test('does not take a heartbeat of before for an answer (invariants 9, 10)', () => {
    const { epoch } = rig.member('m1');
    rig.pass(INTERVAL_MS);
    const late = rig.beat('m1', { epoch, owned: [] });
    expect(late).toMatchObject({ refusal: undefined, records: [], changed: [] });
    expect(rig.revoking('m1')).toEqual(['a2', 'a3']);
  });

  test('leaves alone whoever keeps what it has', () => {
    rig.settle();
    const { epoch } = rig.member('m1');
    rig.join('m3', { subscription: named('b') });
    rig.pass(INTERVAL_MS);
    expect(rig.assigned('m3')).toEqual(['b0', 'b1']);
    expect(rig.member('m1').epoch).toBe(epoch);
  });

  test('gives all that it changes one epoch, and says whom it concerns', () => {
    rig.pass(INTERVAL_MS);
    const before = rig.state.epoch;
    const done = rig.beat('m1');
    expect(rig.state.epoch).toBe(before + 1);
    expect([rig.member('m1').epoch, rig.member('m2').epoch]).toEqual([before + 1, before + 1]);
    expect(done.changed).toEqual(['m1', 'm2']);
    expect(recorded(done)).toEqual(['group', 'm1', 'm2']);
  });

  test('lets a partition go and come back when the target changes its mind', () => {
    rig.pass(INTERVAL_MS);
    rig.leave('m2');
    rig.pass(INTERVAL_MS);
    // It was told to let them go, and may have.
    expect([rig.assigned('m1'), rig.revoking('m1')]).toEqual([
      ['a0', 'a1'],
      ['a2', 'a3'],
    ]);
    rig.beat('m1');
    expect(rig.assigned('m1')).toEqual(['a0', 'a1', 'a2', 'a3']);
    expect(rig.member('m1').assigned.get(keyOf('a2'))!.since).toBe(rig.member('m1').epoch);
  });

  test('costs nothing but time while nothing changes', () => {
    rig.settle();
    rig.nowMs += 100;
    const before = rig.state;
    expect(rig.beat('m1')).toMatchObject({ records: [], changed: [], removed: [] });
    expect(rig.state.members.get('m2')).toBe(before.members.get('m2'));
    expect(rig.state.epoch).toBe(before.epoch);
    expect(rig.member('m1').sessionDeadlineMs).toBe(rig.nowMs + SESSION_MS);
    expect(rig.pass(1)).toMatchObject({ records: [], changed: [] });
  });

  test('that takes too long costs the member its membership, and frees the rest when its session is over (invariant 10)', () => {
    rig.pass(INTERVAL_MS);
    for (let waited = 0; waited < REBALANCE_MS; waited += 5_000) {
      expect(rig.beat('m1', { owned: ['a0', 'a1', 'a2', 'a3'] }).refusal).toBeUndefined();
      rig.beat('m2');
      rig.pass(5_000);
    }
    const late = rig.beat('m1', { owned: ['a0', 'a1', 'a2', 'a3'] });
    expect(late.refusal).toMatchObject({ reason: 'UNKNOWN_MEMBER_ID', metadata: { rebalance_timeout_ms: '30000' } });
    rig.beat('m2');
    // The last answer that it got lets it believe in them until then.
    expect(rig.assigned('m2')).toEqual([]);
    const end = rig.pass(5_000);
    expect(end.removed).toMatchObject([{ member: { memberId: 'm1' }, why: 'rebalance-timeout' }]);
    expect(rig.assigned('m2')).toEqual(['a0', 'a1', 'a2', 'a3']);
  });

  test('that is reported a little late, but in full, is still good', () => {
    rig.pass(INTERVAL_MS);
    for (let waited = 0; waited < REBALANCE_MS; waited += 5_000) {
      rig.beat('m1', { owned: ['a0', 'a1', 'a2', 'a3'] });
      rig.beat('m2');
      rig.pass(5_000);
    }
    expect(rig.beat('m1').refusal).toBeUndefined();
    expect(rig.assigned('m2')).toEqual(['a2', 'a3']);
    expect(rig.member('m1').revokeDeadlineMs).toBeUndefined();
  });
});

describe('a target', () => {
  test('is made at once, and again no sooner than after 50 ms, for all that has happened meanwhile', () => {
    rig.join('m1');
    expect(labelOf(rig.state)).toBe('stable');
    rig.nowMs += 10;
    rig.join('m2');
    rig.join('m3');
    expect(labelOf(rig.state)).toBe('assigning');
    expect(nextDeadlineMs(rig.state)).toBe(1_000 + INTERVAL_MS);
    expect(rig.pass(INTERVAL_MS - 10).changed).toEqual(['m1']);
    expect(labelOf(rig.state)).toBe('reconciling');
  });

  test('is made by the assignor that most members want, uniform when as many want the other', () => {
    rig.join('m1', { assignor: 'range' });
    expect(rig.state.assignor).toBe('range');
    rig.join('m2', { assignor: 'uniform' });
    rig.pass(INTERVAL_MS);
    expect(rig.state.assignor).toBe('uniform');
    rig.join('m3', { assignor: 'range' });
    rig.join('m4');
    rig.pass(INTERVAL_MS);
    expect(rig.state.assignor).toBe('range');
  });

  test('follows a subscription, by names or by a pattern, unless the heartbeat is an old one', () => {
    rig.join('m1');
    rig.nowMs += INTERVAL_MS;
    rig.subscribe('m1', { topics: [], pattern: '*' });
    expect(rig.assigned('m1')).toEqual(['a0', 'a1', 'a2', 'a3', 'b0', 'b1']);
    rig.nowMs += INTERVAL_MS;
    rig.subscribe('m1', named('b'), rig.member('m1').epoch - 1);
    expect(rig.member('m1').subscription.pattern).toBe('*');
    const same = rig.subscribe('m1', { topics: [], pattern: '*' });
    expect(same.records).toEqual([]);
  });

  test('follows topics, as far as somebody subscribes to them', () => {
    rig.join('m1', { subscription: { topics: [], pattern: 'a*' } });
    rig.nowMs += INTERVAL_MS;
    expect(rig.changeTopics(A, { ...B, partitionCount: 7 }).records).toEqual([]);
    expect(rig.state.targetDueMs).toBeUndefined();
    rig.changeTopics({ ...A, partitionCount: 5 }, B);
    expect(rig.assigned('m1')).toEqual(['a0', 'a1', 'a2', 'a3', 'a4']);
    rig.nowMs += INTERVAL_MS;
    rig.changeTopics({ ...A, partitionCount: 5 }, { name: 'ab', id: topicIdOf(3), partitionCount: 1 });
    expect(rig.assigned('m1')).toContain('ab0');
    rig.nowMs += INTERVAL_MS;
    rig.changeTopics({ name: 'ab', id: topicIdOf(3), partitionCount: 1 });
    expect([rig.assigned('m1'), rig.revoking('m1').length]).toEqual([['ab0'], 5]);
  });

  test('takes a topic that was created anew for another', () => {
    rig.join('m1', { subscription: named('b') });
    rig.nowMs += INTERVAL_MS;
    rig.changeTopics({ ...B, id: topicIdOf(9) });
    expect([rig.revoking('m1'), rig.assigned('m1')]).toEqual([
      ['b0', 'b1'],
      ['b0', 'b1'],
    ]);
    expect([...rig.member('m1').assigned.values()].map(({ topicId }) => topicId)).toEqual([topicIdOf(9), topicIdOf(9)]);
  });
});

describe('a membership', () => {
  test('begins with an epoch, even when there is nothing to have', () => {
    rig.join('m1', { subscription: named('not there') });
    expect(rig.member('m1')).toMatchObject({ epoch: 1, assigned: new Map() });
    expect(labelOf(rig.state)).toBe('stable');
  });

  test('is the same when it is asked for twice, and lasts longer', () => {
    rig.join('m1');
    rig.nowMs += 100;
    const { epoch } = rig.member('m1');
    expect(rig.join('m1')).toMatchObject({ refusal: undefined, records: [], changed: [] });
    expect(rig.member('m1')).toMatchObject({ epoch, sessionDeadlineMs: rig.nowMs + SESSION_MS });
    expect(recorded(rig.join('m1', { subscription: named('a', 'b') }))).toEqual(['group', 'topics', 'm1']);
    expect(rig.assigned('m1')).toContain('b1');
  });

  test('ends with the session, which runs from the last heartbeat', () => {
    rig.join('m1');
    rig.join('m2');
    rig.settle();
    rig.pass(SESSION_MS - 1);
    rig.beat('m2');
    const done = rig.pass(1);
    expect(done.removed).toMatchObject([{ member: { memberId: 'm1' }, why: 'session' }]);
    expect(done.changed).toEqual(['m1', 'm2']);
    expect(rig.assigned('m2')).toEqual(['a0', 'a1', 'a2', 'a3']);
    expect(rig.beat('m1', { epoch: 1, owned: [] }).refusal?.reason).toBe('UNKNOWN_MEMBER_ID');
    expect(checkMember(rig.state, 'm1', 1)?.reason).toBe('UNKNOWN_MEMBER_ID');
  });

  test('ends at once when the member leaves', () => {
    rig.join('m1');
    rig.join('m2');
    rig.settle();
    rig.nowMs += INTERVAL_MS;
    expect(recorded(rig.leave('m1'))).toEqual(['group', 'm1', 'm2']);
    expect(rig.assigned('m2')).toEqual(['a0', 'a1', 'a2', 'a3']);
    expect(rig.leave('m1').refusal?.reason).toBe('UNKNOWN_MEMBER_ID');
  });

  test('is refused where there are enough, and to an epoch that nobody was ever given', () => {
    rig.join('m1', { maxMembers: 1 });
    const before = rig.state;
    expect(rig.join('m2', { maxMembers: 1 }).refusal).toMatchObject({ reason: 'GROUP_MAX_SIZE_REACHED' });
    expect(rig.state).toEqual(before);
    expect(rig.beat('m1', { epoch: 2, owned: [] }).refusal?.reason).toBe('FENCED_MEMBER_EPOCH');
    expect(checkMember(rig.state, 'm1', 2)?.reason).toBe('FENCED_MEMBER_EPOCH');
    expect(checkMember(rig.state, 'm1', 0)).toBeUndefined();
  });

  test('is what it takes to act in a group that has members', () => {
    expect(checkMember(rig.state, '', 0)).toBeUndefined();
    expect(checkMember(rig.state, '', 1)?.reason).toBe('UNKNOWN_MEMBER_ID');
    rig.join('m1');
    expect(checkMember(rig.state, '', 0)?.reason).toBe('UNKNOWN_MEMBER_ID');
  });

  test('of nobody leaves the group empty, since when is kept', () => {
    expect([labelOf(rig.state), rig.state.emptySinceMs]).toEqual(['empty', rig.now.wallMs]);
    rig.join('m1');
    expect(rig.state.emptySinceMs).toBeUndefined();
    rig.nowMs += 500;
    const done = rig.leave('m1');
    expect(done.records[0]).toEqual({ kind: 'group', value: { epoch: 2, emptySinceMs: rig.now.wallMs } });
    rig.pass(100);
    expect([labelOf(rig.state), rig.state.emptySinceMs]).toEqual(['empty', rig.now.wallMs - 100]);
    expect(nextDeadlineMs(rig.state)).toBeUndefined();
  });
});

describe('a commit', () => {
  beforeEach(() => {
    rig.join('m1');
    rig.join('m2');
    rig.beat('m1');
    rig.pass(INTERVAL_MS);
  });

  test('passes from the epoch at which the partition was given until it is gone (invariant 9)', () => {
    const { epoch } = rig.member('m1');
    expect(rig.refusal('m1', 1, 'a0')).toBeUndefined();
    expect(rig.refusal('m1', epoch, 'a0')).toBeUndefined();
    // What it is giving up is its own until it has.
    expect(rig.refusal('m1', epoch, 'a3')).toBeUndefined();
    expect(rig.refusal('m1', epoch + 1, 'a0')).toBe('FENCED_MEMBER_EPOCH');
    rig.beat('m1');
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a3')).toBe('FENCED_MEMBER_EPOCH');
  });

  test('of an earlier time with the same partition does not pass (invariant 9)', () => {
    const earlier = rig.member('m1').epoch;
    rig.beat('m1');
    rig.nowMs += INTERVAL_MS;
    rig.leave('m2');
    expect(rig.assigned('m1')).toContain('a3');
    expect(rig.refusal('m1', earlier, 'a3')).toBe('FENCED_MEMBER_EPOCH');
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a3')).toBeUndefined();
  });

  test('of before a reset does not pass, and whoever holds the partition is told (invariants 8, 9)', () => {
    const before = rig.member('m1').epoch;
    const done = rig.reset('a0');
    expect(done.changed).toEqual(['m1']);
    expect(rig.member('m1').epoch).toBe(before + 1);
    expect(rig.refusal('m1', before, 'a0')).toBe('FENCED_MEMBER_EPOCH');
    expect(rig.refusal('m1', before, 'a1')).toBeUndefined();
    expect(rig.refusal('m1', before + 1, 'a0')).toBeUndefined();
  });

  test('of a partition that was reset while it was given up never passes, since no answer tells of it (invariants 8, 9)', () => {
    rig.reset('a3');
    rig.beat('m1', { owned: ['a0', 'a1', 'a3'] });
    expect(rig.revoking('m1')).toEqual(['a3']);
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a3')).toBe('FENCED_MEMBER_EPOCH');
    rig.beat('m1');
    expect(rig.assigned('m2')).toContain('a3');
  });

  test('of a partition that was reset just before it was asked back does not pass either (invariants 8, 9)', () => {
    rig.beat('m1');
    rig.beat('m1');
    rig.nowMs += INTERVAL_MS;
    rig.reset('a1');
    rig.join('m3');
    rig.join('m4');
    rig.pass(INTERVAL_MS);
    expect(rig.revoking('m1')).toEqual(['a1']);
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a1')).toBe('FENCED_MEMBER_EPOCH');
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a0')).toBeUndefined();
  });

  test('of a partition that was asked back before the member has said that it knows of it passes: it may have begun with it', () => {
    rig = new Rig();
    rig.join('m1');
    const { epoch } = rig.member('m1');
    rig.join('m2');
    rig.pass(INTERVAL_MS);
    expect(rig.revoking('m1')).toEqual(['a2', 'a3']);
    expect(rig.refusal('m1', epoch, 'a2')).toBeUndefined();
    expect(rig.refusal('m1', rig.member('m1').epoch, 'a2')).toBeUndefined();
    expect(rig.refusal('m1', epoch - 1, 'a2')).toBe('FENCED_MEMBER_EPOCH');
  });

  test('of a partition that nobody has is not held up by a reset of it, which raises the epoch all the same', () => {
    const before = rig.state.epoch;
    expect(rig.reset('b0')).toMatchObject({ changed: [], records: [{ kind: 'group', value: { epoch: before + 1 } }] });
  });
});

describe('after a restart', () => {
  test('members go on with what they had, and only their time begins anew (invariants 9, 10)', () => {
    rig.join('m1');
    rig.join('m2');
    rig.pass(INTERVAL_MS);
    rig.beat('m1', { owned: ['a0', 'a1', 'a3'] });
    const before = rig.state;
    const restored = restoreGroup('group', rig.stored, TOPICS, { monotonicMs: 7, wallMs: 8 });
    expect(restored.epoch).toBe(before.epoch);
    for (const [memberId, member] of before.members) {
      expect(restored.members.get(memberId)).toEqual({
        ...member,
        // Nobody knows any more which of them were.
        assigned: new Map([...member.assigned].map(([key, held]) => [key, { ...held, wasReset: true }])),
        reportedEpoch: 0,
        sessionDeadlineMs: 7 + SESSION_MS,
        revokeDeadlineMs: member.revoking.size > 0 ? 7 + REBALANCE_MS : undefined,
      });
    }
    const tick = transition(restored, { kind: 'tick' }, { monotonicMs: 7, wallMs: 8 });
    expect(tick).toMatchObject({ records: [], changed: [] });
    expect(tick.state.target).toEqual(before.target);
  });

  test('the group follows what has become of topics meanwhile', () => {
    rig.join('m1');
    const now = { monotonicMs: 0, wallMs: 0 };
    const restored = restoreGroup('group', rig.stored, viewOf([{ ...A, partitionCount: 5 }]), now);
    expect([labelOf(restored), nextDeadlineMs(restored)]).toEqual(['assigning', 0]);
    expect(transition(restored, { kind: 'tick' }, now).state.members.get('m1')!.assigned.size).toBe(5);
  });

  test('the group remembers how large a topic was when it began with it, until the topic is gone', () => {
    rig.join('m1');
    rig.changeTopics({ ...A, partitionCount: A.partitionCount + 2 });
    rig.pass(INTERVAL_MS);
    rig.send({ kind: 'leave', memberId: 'm1', temporary: false });
    const grown = viewOf([{ ...A, partitionCount: A.partitionCount + 2 }]);
    const restored = restoreGroup('group', rig.stored, grown, rig.now);
    expect(wasAddedLater(restored, A.id, A.partitionCount - 1)).toBe(false);
    expect(wasAddedLater(restored, A.id, A.partitionCount)).toBe(true);
    expect(wasAddedLater(restored, B.id, 0)).toBe(false);
    rig.changeTopics(B);
    rig.join('m2', { subscription: named('b'), topics: viewOf([B]) });
    rig.pass(INTERVAL_MS);
    expect([...rig.state.begun.keys()]).toEqual([B.id]);
  });

  test('a group without members is empty since it was', () => {
    const state = restoreGroup(
      'group',
      { group: { epoch: 9, emptySinceMs: 77 }, topics: [], members: [] },
      TOPICS,
      rig.now,
    );
    expect(state).toMatchObject({ epoch: 9, emptySinceMs: 77, targetDueMs: undefined });
    const unknown = restoreGroup('group', { group: undefined, topics: [], members: [] }, TOPICS, rig.now);
    expect(unknown).toMatchObject({ epoch: 0, emptySinceMs: rig.now.wallMs });
  });

  test('and after a write that failed, every session begins anew', () => {
    rig.join('m1');
    rig.join('m2');
    rig.pass(INTERVAL_MS);
    const renewed = renewSessions(rig.state, { monotonicMs: 90_000, wallMs: 0 });
    expect(renewed.members.get('m1')).toMatchObject({
      sessionDeadlineMs: 90_000 + SESSION_MS,
      revokeDeadlineMs: 90_000 + REBALANCE_MS,
    });
    expect(renewed.members.get('m2')).toMatchObject({
      sessionDeadlineMs: 90_000 + SESSION_MS,
      revokeDeadlineMs: undefined,
    });
  });
});
