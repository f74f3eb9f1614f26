/** The offsets that there are side files of. */
import type { Offset } from '../core/types.js';
import type { SideFileKind } from './engine.js';

export class OffsetSets {
  readonly #offsets = new Map<SideFileKind, readonly Offset[]>();

  /** Ascending. */
  of(kind: SideFileKind): readonly Offset[] {
    return this.#offsets.get(kind) ?? [];
  }

  add(kind: SideFileKind, offset: Offset): void {
    const known = this.of(kind);
    if (!known.includes(offset))
      this.#offsets.set(
        kind,
        [...known, offset].sort((a, b) => a - b),
      );
  }

  delete(kind: SideFileKind, offset: Offset): void {
    this.#offsets.set(
      kind,
      this.of(kind).filter((other) => other !== offset),
    );
  }
}
