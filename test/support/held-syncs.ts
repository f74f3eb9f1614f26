/** A file system whose syncs end when they are told to. */
import { onTestFinished } from 'vitest';
import { FaultyFileSystem } from './faulty-file-system.js';

export class HeldSyncs extends FaultyFileSystem {
  /** Syncs that were held, those released included. */
  heldCount = 0;
  /** Data syncs of one file that were under way at once, at most. */
  mostAtOnce = 0;
  readonly #underWay = new Map<number, number>();
  #gate: { readonly name: string; readonly released: Promise<void> } | undefined;

  /** The next sync of this kind waits until the returned function is called, or the test has ended: its engine is closed then. */
  hold(name: 'fdatasync' | 'syncDirectory' = 'fdatasync'): () => void {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#gate = { name, released };
    onTestFinished(release);
    return release;
  }

  override async fdatasync(fd: number): Promise<void> {
    const count = (this.#underWay.get(fd) ?? 0) + 1;
    this.#underWay.set(fd, count);
    this.mostAtOnce = Math.max(this.mostAtOnce, count);
    try {
      await this.#wait('fdatasync');
      await super.fdatasync(fd);
    } finally {
      this.#underWay.set(fd, (this.#underWay.get(fd) ?? 1) - 1);
    }
  }

  override async syncDirectory(path: string): Promise<void> {
    await this.#wait('syncDirectory');
    await super.syncDirectory(path);
  }

  async #wait(name: string): Promise<void> {
    const gate = this.#gate;
    if (gate?.name !== name) return;
    this.#gate = undefined;
    this.heldCount++;
    await gate.released;
  }
}
