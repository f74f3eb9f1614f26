import type {
  BegunTopic,
  MembershipRecord,
  StoredGroup,
  StoredMember,
} from '../../../../src/broker/groups/group-types.js';

/** What the records written so far come to. */
export class StoredState {
  group: StoredGroup | undefined;
  topics: readonly BegunTopic[] = [];
  readonly members: Map<string, StoredMember> = new Map();

  apply(records: readonly MembershipRecord[]): void {
    for (const record of records) {
      if (record.kind === 'group') this.group = record.value;
      else if (record.kind === 'topics') this.topics = record.value ?? [];
      else if (record.value === undefined) this.members.delete(record.memberId);
      else this.members.set(record.memberId, record.value);
    }
  }

  copy(): StoredState {
    const copy = new StoredState();
    copy.group = this.group;
    copy.topics = this.topics;
    for (const [memberId, member] of this.members) copy.members.set(memberId, member);
    return copy;
  }
}
