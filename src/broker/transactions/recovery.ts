/** Finds what is open in partitions and groups and belongs to no transaction that the coordinator knows, and ends it. */
import type { Clock } from '../../core/clock.js';
import type { Logger } from '../../core/logger.js';
import { forEachLimit } from '../../core/semaphore.js';
import { Slices } from '../../core/slices.js';
import type { Partition } from '../../partition/partition.js';
import type { OpenTransaction } from '../../partition/producers/types.js';
import type { GroupCoordinatorApi, PendingTransaction } from '../groups/coordinator-types.js';
import type { Topics } from '../topics.js';
import type { HangingTransaction, ProducerIdentity, TransactionPartition } from './coordinator-types.js';
import { isPrepared } from './transaction.js';
import type { TransactionEntry } from './transaction-entry.js';
import type { TransactionTable } from './transaction-table.js';
import { isSameIdentity, LAST_EPOCH, type OpenRemains } from './transaction-types.js';

const SLICE_MS = 5;
const CONCURRENCY = 16;

export interface RecoveryOptions {
  readonly topics: Topics;
  readonly groups: Pick<GroupCoordinatorApi, 'endTransaction'>;
  readonly table: TransactionTable;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The longest that a transaction may take, in ms. */
  readonly maxTimeoutMs: number;
  /** Whether there are transactional ids that could not be read: then what nobody answers for may be theirs. */
  readonly isIncomplete: () => boolean;
  /** Aborts what is open under the present identity of a transactional id, or a later one; returns at once. */
  readonly abort: (entry: TransactionEntry, open: OpenRemains) => void;
}

/** What nobody answers for, of one producer id. */
interface Remains {
  epoch: number;
  readonly partitions: { readonly where: TransactionPartition; readonly partition: Partition }[];
  readonly groupIds: string[];
}

/**
 * A transaction that is open in a partition belongs to the coordinator's state from the moment on at which its first batch
 * is given to the partition, and until its marker is durable there. So what does not belong to it when both are looked at in
 * the same turn was left by an earlier run of the broker, or by a defect.
 */
export class Recovery {
  readonly #options: RecoveryOptions;
  /** Partitions that were seen without remains: what is found there later is of this run, and may be anything. */
  readonly #clean = new WeakSet<Partition>();

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  /**
   * Ends what is found; in partitions that were clean before, only what is older than any transaction may be.
   * @param pending of the groups that can tell
   */
  async run(pending: Iterable<PendingTransaction>): Promise<void> {
    const { clock, maxTimeoutMs, table } = this.#options;
    const found = new Map<number, Remains>();
    const slices = new Slices(clock, SLICE_MS);
    for (const { partition } of this.#options.topics.partitions()) {
      const unowned = partition.openTransactions().filter((open) => !this.#isOwned(open));
      const isClean = this.#clean.has(partition);
      if (unowned.length === 0 && !isClean) this.#clean.add(partition);
      const before = clock.now() - maxTimeoutMs;
      for (const open of unowned) if (!isClean || open.sinceMs < before) addPartition(found, open, partition);
      await slices.step();
    }
    for (const open of pending) {
      if (!this.#isOwned(open)) addGroup(found, open);
      await slices.step();
    }
    const orphans: [number, Remains][] = [];
    for (const [producerId, remains] of found) {
      const owner = table.ownerOf(producerId);
      if (owner !== undefined && isPresent(owner, producerId, remains)) this.#abort(owner, producerId, remains);
      else orphans.push([producerId, remains]);
      await slices.step();
    }
    await forEachLimit(orphans, CONCURRENCY, ([producerId, remains]) => this.#endOrphan(producerId, remains));
  }

  /** Whether it is part of a transaction that is open, or is being completed. */
  #isOwned(open: ProducerIdentity): boolean {
    const owner = this.#options.table.ownerOf(open.producerId);
    if (owner === undefined) return false;
    const isBusy = owner.state.status === 'ongoing' || isPrepared(owner.state);
    return isBusy && isSameIdentity(open, owner.state.identity);
  }

  #abort(owner: TransactionEntry, producerId: number, { epoch, partitions, groupIds }: Remains): void {
    const identity = { producerId, producerEpoch: epoch };
    this.#options.abort(owner, { identity, partitions: partitions.map(({ where }) => where), groupIds });
  }

  /** Of an id that nobody has, or of an epoch that is over: a marker of the next one ends it. Never rejects. */
  async #endOrphan(producerId: number, { epoch, partitions, groupIds }: Remains): Promise<void> {
    const { groups, logger, isIncomplete, table } = this.#options;
    if (isIncomplete() && table.ownerOf(producerId) === undefined) return;
    const markerEpoch = Math.min(epoch, LAST_EPOCH) + 1;
    try {
      for (const { partition, where } of partitions) {
        logger.warn({ ...where, producerId, producerEpoch: epoch }, 'an open transaction that nobody ends is aborted');
        const { epoch: coordinatorEpoch } = partition.log;
        await partition.endTransaction({ producerId, producerEpoch: markerEpoch, commit: false, coordinatorEpoch });
      }
      for (const groupId of groupIds) {
        logger.warn({ group: groupId, producerId, producerEpoch: epoch }, 'offsets of no transaction are dropped');
        await groups.endTransaction({ groupId, producerId, producerEpoch: epoch, commit: false });
      }
    } catch (error) {
      logger.warn({ producerId, err: error }, 'what was left of a transaction cannot be ended; it is tried again');
    }
  }

  /** What nobody answers for now. */
  async hanging(): Promise<readonly HangingTransaction[]> {
    const slices = new Slices(this.#options.clock, SLICE_MS);
    const hanging: HangingTransaction[] = [];
    for (const { topic, partition } of this.#options.topics.partitions()) {
      for (const open of partition.openTransactions()) {
        const { producerId, producerEpoch, firstOffset } = open;
        if (this.#isOwned(open)) continue;
        const place = { topic: topic.record.name, partition: partition.index };
        hanging.push({ ...place, producerId, producerEpoch, firstOffset });
      }
      await slices.step();
    }
    return hanging;
  }
}

/** Whether the transaction would be the present one of its id. */
function isPresent({ state }: TransactionEntry, producerId: number, { epoch }: Remains): boolean {
  const { producerId: presentId, producerEpoch } = state.next ?? state.identity;
  return presentId === producerId && epoch >= producerEpoch;
}

function remainsOf(found: Map<number, Remains>, { producerId, producerEpoch }: ProducerIdentity): Remains {
  let remains = found.get(producerId);
  if (remains === undefined) {
    remains = { epoch: producerEpoch, partitions: [], groupIds: [] };
    found.set(producerId, remains);
  }
  remains.epoch = Math.max(remains.epoch, producerEpoch);
  return remains;
}

function addPartition(found: Map<number, Remains>, open: OpenTransaction, partition: Partition): void {
  const { topicId } = partition.log.id;
  const where = { topic: partition.topic, topicId, partition: partition.index };
  remainsOf(found, open).partitions.push({ where, partition });
}

function addGroup(found: Map<number, Remains>, open: PendingTransaction): void {
  remainsOf(found, open).groupIds.push(open.groupId);
}
