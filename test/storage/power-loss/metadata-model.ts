/** What a metadata store should hold, as text that can be compared. */
import type { MetadataEntry } from '../../../src/storage/engine.js';

interface Held {
  /** Undefined: deleted. */
  readonly value: string | undefined;
  readonly version: number;
}

/** A change as it is to be asked for, and all that is held once it is made. */
export interface ModelChange {
  readonly key: string;
  readonly value: string | undefined;
  /** That the key has before. */
  readonly version: number;
  readonly after: string;
}

export class MetadataModel {
  readonly #held = new Map<string, Held>();

  /** Changes a key. One that is not there is set, whatever `value` says. */
  change(key: string, value: string | undefined): ModelChange {
    const before = this.#held.get(key);
    const isThere = before?.value !== undefined;
    const next = isThere ? value : (value ?? 'set');
    this.#held.set(key, { value: next, version: (before?.version ?? 0) + 1 });
    return { key, value: next, version: isThere ? before.version : 0, after: this.text() };
  }

  /** As `change`, but nothing is changed after all. */
  tryChange(key: string, value: string): ModelChange {
    const before = this.#held.get(key);
    const change = this.change(key, value);
    if (before) this.#held.set(key, before);
    else this.#held.delete(key);
    return change;
  }

  text(): string {
    const entries: MetadataEntry[] = [];
    for (const [key, { value, version }] of this.#held) if (value !== undefined) entries.push({ key, value, version });
    return metadataText(entries);
  }
}

export function metadataText(entries: readonly MetadataEntry[]): string {
  const sorted = [...entries].sort((a, b) => (a.key < b.key ? -1 : 1));
  return JSON.stringify(sorted.map(({ key, value, version }) => [key, value, version]));
}
