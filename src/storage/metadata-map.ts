/** The in-memory half of every metadata store: versioned values, compare-and-set and watchers. */
import type { CasResult, MetadataEntry } from './engine.js';

type Listener = (key: string, entry: MetadataEntry | undefined) => void;

/** A change that passed its version check. `value` undefined deletes the key. */
export interface MetadataChange {
  readonly key: string;
  readonly value: string | undefined;
  readonly version: number;
}

/**
 * How many deleted keys keep their version in mind. A key that is created again goes on counting from there, so that
 * a version read before the deletion never matches after it. Versions of keys deleted longer ago begin at 1 again.
 */
export const MAX_REMEMBERED_DELETIONS = 10_000;

/**
 * Invariant: a version of a key is never used twice while its deletion is remembered. Remembering lasts as long as
 * the process, like every holder of an old version does.
 */
export class MetadataMap {
  readonly #entries = new Map<string, MetadataEntry>();
  readonly #deletedVersions = new Map<string, number>();
  readonly #watchers = new Set<{ readonly prefix: string; readonly listener: Listener }>();

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): MetadataEntry | undefined {
    return this.#entries.get(key);
  }

  /** Version that `key` has, or had when it was deleted; 0 when it is not known. */
  lastVersion(key: string): number {
    return this.#entries.get(key)?.version ?? this.#deletedVersions.get(key) ?? 0;
  }

  entries(): IterableIterator<MetadataEntry> {
    return this.#entries.values();
  }

  list(prefix: string): readonly MetadataEntry[] {
    const found: MetadataEntry[] = [];
    for (const entry of this.#entries.values()) if (entry.key.startsWith(prefix)) found.push(entry);
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Makes a checked change visible and tells the watchers. */
  apply(change: MetadataChange): void {
    const entry = entryAfter(change);
    if (entry) {
      this.#entries.set(change.key, entry);
      this.#deletedVersions.delete(change.key);
    } else {
      this.#entries.delete(change.key);
      this.#rememberDeletion(change);
    }
    for (const watcher of [...this.#watchers]) {
      if (change.key.startsWith(watcher.prefix)) watcher.listener(change.key, entry);
    }
  }

  watch(prefix: string, listener: Listener): () => void {
    const watcher = { prefix, listener };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #rememberDeletion(change: MetadataChange): void {
    this.#deletedVersions.delete(change.key);
    this.#deletedVersions.set(change.key, change.version);
    if (this.#deletedVersions.size <= MAX_REMEMBERED_DELETIONS) return;
    for (const oldest of this.#deletedVersions.keys()) {
      this.#deletedVersions.delete(oldest);
      return;
    }
  }
}

/** The entry that a change leaves behind; undefined after a deletion. */
export function entryAfter(change: MetadataChange): MetadataEntry | undefined {
  if (change.value === undefined) return undefined;
  return { key: change.key, value: change.value, version: change.version };
}

/**
 * Checks a compare-and-set against what stands there now.
 * @returns the change to apply, or the refusal
 */
export function checkCas(
  current: MetadataEntry | undefined,
  lastVersion: number,
  key: string,
  value: string | undefined,
  expectedVersion: number,
): { readonly change: MetadataChange } | { readonly refusal: CasResult } {
  if ((current?.version ?? 0) !== expectedVersion) return { refusal: { ok: false, current } };
  return { change: { key, value, version: lastVersion + 1 } };
}
