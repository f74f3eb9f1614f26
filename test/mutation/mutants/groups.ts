/** Consumer groups: offsets that are lost, passed over or taken back, and partitions with two owners. */
import type { Mutant } from '../mutant.js';

export const GROUP_MUTANTS: readonly Mutant[] = [
  {
    name: 'commit of offsets acknowledged before it is durable',
    invariants: [8],
    patches: [
      {
        file: 'src/broker/groups/offset-coordinator.ts',
        find: 'await shard.commit(entry, this.#inOrder(entry, accepted));',
        replace: 'void shard.commit(entry, this.#inOrder(entry, accepted)).catch(() => undefined);',
      },
    ],
    guard: {
      file: 'test/broker/groups/durability.test.ts',
      test: 'is undone: nobody was told, everything is as it was',
    },
  },
  {
    name: 'committed offsets kept although they could not be written',
    invariants: [8],
    patches: [
      {
        file: 'src/broker/groups/shard.ts',
        find: 'const coming = Math.max(0, entry.unitsAdded(offsets, pending));',
        replace:
          'for (const change of offsets) if (change.value !== undefined) entry.offsets.set(change, change.value);\n    ' +
          'const coming = Math.max(0, entry.unitsAdded(offsets, pending));',
      },
    ],
    guard: {
      file: 'test/broker/groups/durability.test.ts',
      test: 'is undone: nobody was told, everything is as it was',
    },
  },
  {
    name: 'commit of an earlier time with the partition taken',
    invariants: [9],
    patches: [
      {
        file: 'src/broker/groups/group.ts',
        find: 'if (epoch < held.since || ',
        replace: 'if (epoch < 0 || ',
      },
    ],
    guard: {
      file: 'test/broker/groups/group.test.ts',
      test: 'of an earlier time with the same partition does not pass',
    },
  },
  {
    name: 'commit of a partition taken from a member that does not own it',
    invariants: [9],
    patches: [
      {
        file: 'src/broker/groups/group.ts',
        find: 'if (held === undefined) return notOwned(member, epoch, partition);',
        replace: 'if (held === undefined) return undefined;',
      },
    ],
    guard: {
      file: 'test/broker/groups/group.test.ts',
      test: 'passes from the epoch at which the partition was given until it is gone',
    },
  },
  {
    name: 'delayed commit undoes a later one',
    invariants: [8, 9],
    patches: [
      {
        file: 'src/broker/groups/group-entry.ts',
        find: 'if (sequence <= last) throw overtakenCommit(',
        replace: 'if (sequence < 0) throw overtakenCommit(',
      },
    ],
    guard: {
      file: 'test/broker/groups/commits.test.ts',
      test: 'that a later one of the member has overtaken is refused',
    },
  },
  {
    name: 'reset that fences nobody',
    invariants: [8, 9],
    patches: [
      {
        file: 'src/broker/groups/reconcile.ts',
        find: '({ ...held, since: epoch, wasReset: true })',
        replace: '({ ...held })',
      },
    ],
    guard: { file: 'test/broker/groups/group.test.ts', test: 'of before a reset does not pass' },
  },
  {
    name: 'start of a partition refused because it was asked back soon',
    invariants: [7],
    patches: [
      {
        file: 'src/broker/groups/reconcile.ts',
        find: 'wasReset && held.since > member.reportedEpoch',
        replace: 'held.since > member.reportedEpoch',
      },
    ],
    guard: {
      file: 'test/broker/groups/group.test.ts',
      test: 'of a partition that was asked back before the member has said that it knows of it passes',
    },
  },
  {
    name: 'partition given away while it is being given up',
    invariants: [10],
    patches: [
      {
        file: 'src/broker/groups/reconcile.ts',
        find: 'for (const key of revoking.keys()) held.add(key);',
        replace: 'for (const key of revoking.keys()) held.delete(key);',
      },
    ],
    guard: {
      file: 'test/broker/groups/group.test.ts',
      test: 'asks back at once, and gives only when the old owner has said that it let go',
    },
  },
  {
    name: 'heartbeat of before taken for the giving up of a partition',
    invariants: [9, 10],
    patches: [
      {
        file: 'src/broker/groups/reconcile.ts',
        find: 'epoch >= revokedAt && !owned.has(key)',
        replace: 'revokedAt > 0 && epoch >= 0 && !owned.has(key)',
      },
    ],
    guard: {
      file: 'test/broker/groups/group.test.ts',
      test: 'does not take a heartbeat of before for an answer',
    },
  },
  {
    name: 'members forgotten at a restart of the broker',
    invariants: [9, 10],
    patches: [
      {
        file: 'src/broker/groups/group.ts',
        find: 'const members = stored.members.map((member) => restoreMember(member, now));',
        replace:
          'const members = stored.members.slice(stored.members.length).map((member) => restoreMember(member, now));',
      },
    ],
    guard: {
      file: 'test/broker/groups/durability.test.ts',
      test: 'members go on with their epochs, partitions and offsets, and nobody is given what another has',
    },
  },
  {
    name: 'session of a client counted from the answer',
    invariants: [10],
    patches: [
      {
        file: 'src/client/group/session.ts',
        find: 'const before = this.#confirmedMs;\n    this.#confirmedMs = sentAtMs;',
        replace:
          'const before = this.#confirmedMs;\n    this.#confirmedMs = Math.max(sentAtMs, this.#context.runtime.clock.monotonic());',
      },
    ],
    guard: {
      file: 'test/client/group/membership.test.ts',
      test: 'the session counts from the sending of the last heartbeat that was answered',
    },
  },
  {
    name: 'client that waits for a timer to learn that its session is over',
    invariants: [9, 10],
    patches: [
      {
        file: 'src/client/group/session.ts',
        find: 'return this.#partitions.has(partition) && !this.#isExpired;',
        replace: 'return this.#partitions.has(partition);',
      },
    ],
    guard: {
      file: 'test/client/group/membership.test.ts',
      test: 'a process that stood still knows that it owns nothing before any timer has told it',
    },
  },
  {
    name: 'commit repeated under the sequence of before',
    invariants: [8],
    patches: [{ file: 'src/client/group/committer.ts', find: 'sequence: ++this.#sequence', replace: 'sequence: 1' }],
    guard: {
      file: 'test/client/group/commits.test.ts',
      test: 'a commit whose stream breaks is repeated with a higher sequence and the newest offsets',
    },
  },
  {
    name: 'commit that passes over what is not finished',
    invariants: [7, 8],
    patches: [
      {
        file: 'src/client/group/progress.ts',
        find: 'return this.hasUnfinished ? this.#firstFrom : this.#position;',
        replace: 'return this.#position;',
      },
    ],
    guard: {
      file: 'test/client/group/progress.test.ts',
      test: 'stops at the first record that is not finished, and moves over what was finished behind it',
    },
  },
  {
    name: 'partition let go while its record is in hand',
    invariants: [10],
    patches: [
      {
        file: 'src/client/group/participation.ts',
        find: "for (const holding of holdings) holding.phase = 'revoking';",
        replace: "for (const holding of holdings) { holding.phase = 'revoking'; holding.stopWaiting(); }",
      },
    ],
    guard: {
      file: 'test/client/consumer-groups.test.ts',
      test: 'a revoked partition whose record is in hand goes when the loop asks for more, and begins after it elsewhere',
    },
  },
  {
    name: 'records handed out of partitions that are gone',
    invariants: [9, 10],
    patches: [
      {
        file: 'src/client/group/batch-feed.ts',
        find: 'return holding.source === source && this.isHeld(holding);',
        replace: 'return source !== undefined && holding.assigned !== undefined;',
      },
    ],
    guard: {
      file: 'test/client/consumer-groups.test.ts',
      test: 'the record in hand when its group is reset cannot be committed',
    },
  },
];
