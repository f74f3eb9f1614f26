/** The side files of a log in memory. */
import type { Offset } from '../../core/types.js';
import { checkSideFileSize } from '../batches.js';
import type { SideFileKind } from '../engine.js';

/** See `SideFiles`. */
export class MemorySideFiles {
  readonly #files: Readonly<Record<SideFileKind, Map<Offset, Buffer>>> = { snapshot: new Map(), txnindex: new Map() };

  offsets(kind: SideFileKind): readonly Offset[] {
    return [...this.#files[kind].keys()].sort((a, b) => a - b);
  }

  read(kind: SideFileKind, offset: Offset): Buffer | undefined {
    const contents = this.#files[kind].get(offset);
    return contents && Buffer.from(contents);
  }

  /** @throws LogError RESOURCE_LIMIT when it is too large */
  write(kind: SideFileKind, offset: Offset, contents: Uint8Array): void {
    checkSideFileSize(contents);
    this.#files[kind].set(offset, Buffer.from(contents));
  }

  remove(kind: SideFileKind, offset: Offset): void {
    this.#files[kind].delete(offset);
  }
}
