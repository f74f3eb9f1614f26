import { LRUCache } from 'lru-cache';
import { MessageIdBudget } from '../message-ids/message-id-budget.js';
import type { AbortedEntry } from './aborted-tail.js';
import { ProducerBudget } from './producer-budget.js';
import type { ProducerStateConfig } from './producer-config.js';

/** Memory for entries read from files of aborted transactions: some forty files of the usual size. */
const ABORTED_CACHE_BYTES = 16 * 1024 * 1024;
const ABORTED_ENTRY_BYTES = 96;
/** What a file costs besides its entries. */
const FILE_OVERHEAD_BYTES = 500;

/** When something of a partition goes to a file. */
export interface FileThresholds {
  /** Aborted transactions that are kept in memory; when there are as many, they go into a file. */
  readonly abortedInMemory: number;
  /** A snapshot is written after this much was appended; that much of the log is read at the most after a crash. */
  readonly snapshotEveryBytes: number;
}

const THRESHOLDS: FileThresholds = { abortedInMemory: 4096, snapshotEveryBytes: 64 * 1024 * 1024 };

/** What the partitions of one broker share to remember producers within bounds. */
export class SharedProducers {
  readonly config: ProducerStateConfig;
  readonly budget: ProducerBudget;
  readonly messageIds: MessageIdBudget;
  readonly thresholds: FileThresholds;
  /** Entries of files, by topic id, partition and first marker. */
  readonly abortedFiles: LRUCache<string, readonly AbortedEntry[]> = new LRUCache({
    maxSize: ABORTED_CACHE_BYTES,
    sizeCalculation: (entries) => entries.length * ABORTED_ENTRY_BYTES + FILE_OVERHEAD_BYTES,
  });

  constructor(config: ProducerStateConfig, thresholds: FileThresholds = THRESHOLDS) {
    this.config = config;
    this.thresholds = thresholds;
    this.budget = new ProducerBudget(config.maxProducers);
    this.messageIds = new MessageIdBudget(config.maxMessageIds);
  }
}
