/**
 * The directories of the partitions, `logs/<topic id>-<partition>`, and how they go: renamed to `.deleted` first, then
 * deleted one at a time, so that others get at the disk. What is left when the engine is closed goes with the next start.
 */
import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import { type TopicPartition, toTopicId } from '../../core/types.js';
import type { FileSystem } from './fs.js';
import { toStorageError } from './io-errors.js';
import { DELETED_SUFFIX } from './segment.js';
import { parseSideFileName } from './side-file-names.js';
import { TEMPORARY_SUFFIX } from './small-files.js';

const PARTITION_DIRECTORY = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(\d+)$/;

export class LogDirectories {
  readonly #fs: FileSystem;
  /** `logs`. */
  readonly #parent: string;
  readonly #logger: Logger;
  readonly #doomed: string[] = [];
  /** Those that could not be deleted; each was logged. */
  readonly #undeleted = new Set<string>();
  #deleting: Promise<void> | undefined;
  #closed = false;

  constructor(fs: FileSystem, parent: string, logger: Logger) {
    this.#fs = fs;
    this.#parent = parent;
    this.#logger = logger;
  }

  /** @param key of the partition, see `partitionKey` */
  pathOf(key: string): string {
    return join(this.#parent, key);
  }

  /**
   * Removes a partition's directory, durably; what it holds is deleted in the background. Does nothing when there is none.
   * @throws LogError STORAGE_FULL, RESOURCE_LIMIT, STORAGE_ERROR: it may be removed or not, and that may be tried again
   */
  async remove(key: string): Promise<void> {
    const fs = this.#fs;
    const directory = this.pathOf(key);
    const doomed = directory + DELETED_SUFFIX;
    try {
      if (await fs.stat(directory)) {
        await fs.removeTree(doomed);
        await fs.rename(directory, doomed);
      } else if (!(await fs.stat(doomed))) return;
      // Also when it was an earlier attempt that renamed it.
      await fs.syncDirectory(this.#parent);
    } catch (error) {
      throw toStorageError('remove', directory, error, 'unknown');
    }
    this.#deleteInBackground(doomed);
  }

  /** Removes the directories of partitions that `isKnown` denies, and reports those that hold or have held something. */
  async removeUnknown(isKnown: (id: TopicPartition) => boolean): Promise<void> {
    for (const name of await this.#fs.readdir(this.#parent)) {
      const [, topicId, partition] = PARTITION_DIRECTORY.exec(name) ?? [];
      if (topicId === undefined) continue;
      if (isKnown({ topicId: toTopicId(topicId), partition: Number(partition) })) continue;
      const directory = this.pathOf(name);
      const files = await this.#fs.readdir(directory);
      if (files.every(saysNothing)) await this.remove(name);
      else this.#logger.warn({ directory }, 'no topic knows this log; it is left as it is');
    }
  }

  /** Deletes what removals before the last stop have left. */
  async cleanUp(): Promise<void> {
    for (const name of await this.#fs.readdir(this.#parent)) {
      if (name.endsWith(DELETED_SUFFIX)) this.#deleteInBackground(join(this.#parent, name));
    }
  }

  /** Tries once more to delete what could not be deleted; to be called now and then. */
  retry(): void {
    for (const path of this.#undeleted) this.#deleteInBackground(path);
  }

  /** Deletes nothing more, and resolves when the deletion under way has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#deleting;
  }

  #deleteInBackground(path: string): void {
    if (!this.#doomed.includes(path)) this.#doomed.push(path);
    this.#deleting ??= this.#deleteDoomed();
  }

  async #deleteDoomed(): Promise<void> {
    for (let path = this.#doomed.shift(); path !== undefined && !this.#closed; path = this.#doomed.shift()) {
      await this.#delete(path);
    }
    // Here and not after this has resolved: what is removed in between must find the work ended.
    this.#deleting = undefined;
  }

  async #delete(path: string): Promise<void> {
    try {
      await this.#fs.removeTree(path);
      this.#undeleted.delete(path);
    } catch (error) {
      if (this.#undeleted.has(path)) return;
      this.#undeleted.add(path);
      this.#logger.warn({ directory: path, err: error }, 'a removed partition was not deleted; it is tried again');
    }
  }
}

/** Whether a file is beside a log that never held anything: one that speaks of nothing, whole or not. */
function saysNothing(name: string): boolean {
  const whole = name.endsWith(TEMPORARY_SUFFIX) ? name.slice(0, -TEMPORARY_SUFFIX.length) : name;
  return parseSideFileName(whole)?.offset === 0;
}
