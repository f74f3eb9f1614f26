/** Finds what is open in partitions and groups and belongs to no transaction that the coordinator knows, and ends it. */
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
import { LAST_EPOCH } from '../../../../src/broker/transactions/transaction-types.js';
import type { Entry, ModelCoordinator } from './coordinator.js';
import type { Disk } from './life.js';
import { PLACES, type World } from './world.js';

/** Of one producer id. */
interface Remains {
  epoch: number;
  readonly partitions: number[];
  readonly groupIds: string[];
}

/** As `recovery.ts` of the broker. @param done told when there is nothing left that nobody answers for */
export function recover(world: World, disk: Disk, coordinator: ModelCoordinator, done: () => void): void {
  const { effects } = coordinator;
  const orphans: ((told: () => void) => void)[] = [];
  for (const [producerId, { epoch, partitions, groupIds }] of remainsIn(world, disk, coordinator)) {
    const owner = coordinator.ownerOf(producerId);
    const identity = { producerId, producerEpoch: epoch };
    if (owner !== undefined && isPresent(owner, identity)) {
      coordinator.abortRemains(owner, { identity, partitions: partitions.map((index) => PLACES[index]!), groupIds });
      continue;
    }
    const marker = { producerId, producerEpoch: Math.min(epoch, LAST_EPOCH) + 1, commit: false };
    for (const index of partitions) orphans.push((told) => effects.mark(index, marker, told));
    for (const groupId of groupIds) {
      orphans.push((told) => effects.endOffsets(groupId, { ...identity, commit: false }, told));
    }
  }
  effects.all(orphans, done);
}

function remainsIn(
  { defects }: World,
  { partitions, groups }: Disk,
  coordinator: ModelCoordinator,
): Map<number, Remains> {
  const found = new Map<number, Remains>();
  const remainsOf = ({ producerId, producerEpoch }: ProducerIdentity): Remains => {
    const remains = found.get(producerId) ?? { epoch: producerEpoch, partitions: [], groupIds: [] };
    found.set(producerId, remains);
    remains.epoch = Math.max(remains.epoch, producerEpoch);
    return remains;
  };
  for (const partition of defects.has('a restart leaves open what it finds in partitions') ? [] : partitions) {
    for (const open of partition.openTransactions()) {
      if (!coordinator.isOwned(open)) remainsOf(open).partitions.push(partition.index);
    }
  }
  for (const group of defects.has('a restart leaves waiting what it finds in groups') ? [] : groups) {
    for (const open of group.pendingTransactions()) {
      if (!coordinator.isOwned(open)) remainsOf(open).groupIds.push(group.groupId);
    }
  }
  return found;
}

/** Whether the transaction would be the present one of its id. */
function isPresent({ state }: Entry, { producerId, producerEpoch }: ProducerIdentity): boolean {
  const present = state.next ?? state.identity;
  return present.producerId === producerId && producerEpoch >= present.producerEpoch;
}
