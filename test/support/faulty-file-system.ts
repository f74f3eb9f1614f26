/** A file system that counts its calls and fails chosen ones. */
import type { FileStat, FileSystem, OpenMode } from '../../src/storage/local/fs.js';
import { nodeFileSystem } from '../../src/storage/local/fs.js';

export interface FileCall {
  readonly name: keyof FileSystem;
  /** Path, or descriptor where the call takes one. */
  readonly target: string | number;
  /** Path behind a descriptor, where it is known. */
  readonly path: string;
  /** From 1, over all calls. */
  readonly number: number;
  /** Of `openSync`. */
  readonly mode?: OpenMode | undefined;
}

/** Of a write: takes half of what it is given, at least a byte, without an error. */
export const SHORT_WRITE = 'short write';

/** Decides what becomes of a call: undefined lets it through, SHORT_WRITE cuts it short, else the errno to fail with. */
export type FaultRule = (call: FileCall) => string | undefined;

export class FaultyFileSystem implements FileSystem {
  readonly calls: FileCall[] = [];
  bytesRead = 0;
  rule: FaultRule = () => undefined;
  /** Bytes that one write takes at most. */
  maxWriteBytes: number = Number.POSITIVE_INFINITY;
  /** Leaves out what only matters beyond this process, locks and syncs, for tests of very many steps. */
  skipsDisk: boolean = false;
  /** Bytes that the disk says are free; undefined for what the real one says. */
  freeSpace: number | undefined;
  readonly #paths = new Map<number, string>();
  readonly #base: FileSystem;

  constructor(base: FileSystem = nodeFileSystem) {
    this.#base = base;
  }

  get openPaths(): readonly string[] {
    return [...this.#paths.values()];
  }

  count(name: keyof FileSystem, pattern: RegExp = /./): number {
    return this.calls.filter((call) => call.name === name && pattern.test(call.path)).length;
  }

  /** @returns whether the call is to be cut short */
  #enter(name: keyof FileSystem, target: string | number, mode?: OpenMode): boolean {
    const path = typeof target === 'number' ? (this.#paths.get(target) ?? '?') : target;
    const call = { name, target, path, mode, number: this.calls.length + 1 };
    this.calls.push(call);
    const fault = this.rule(call);
    if (fault === undefined || fault === SHORT_WRITE) return fault === SHORT_WRITE;
    throw Object.assign(new Error(`${fault}: injected, ${name} ${path}`), { code: fault });
  }

  openSync(path: string, mode: OpenMode): number {
    this.#enter('openSync', path, mode);
    const fd = this.#base.openSync(path, mode);
    this.#paths.set(fd, path);
    return fd;
  }

  /** Closes even when it fails, as the kernel does. */
  closeSync(fd: number): void {
    try {
      this.#enter('closeSync', fd);
    } finally {
      this.#paths.delete(fd);
      this.#base.closeSync(fd);
    }
  }

  async pread(fd: number, buffer: Uint8Array, position: number): Promise<number> {
    this.#enter('pread', fd);
    const count = await this.#base.pread(fd, buffer, position);
    this.bytesRead += count;
    return count;
  }

  preadSync(fd: number, buffer: Uint8Array, position: number): number {
    this.#enter('preadSync', fd);
    const count = this.#base.preadSync(fd, buffer, position);
    this.bytesRead += count;
    return count;
  }

  writevSync(fd: number, buffers: readonly Uint8Array[], position: number): number {
    const isShort = this.#enter('writevSync', fd);
    if (!isShort && this.maxWriteBytes === Number.POSITIVE_INFINITY) {
      return this.#base.writevSync(fd, buffers, position);
    }
    const all = Buffer.concat(buffers);
    const limit = isShort ? Math.max(1, all.length >> 1) : this.maxWriteBytes;
    return this.#base.writevSync(fd, [all.subarray(0, limit)], position);
  }

  ftruncateSync(fd: number, size: number): void {
    this.#enter('ftruncateSync', fd);
    this.#base.ftruncateSync(fd, size);
  }

  async fdatasync(fd: number): Promise<void> {
    this.#enter('fdatasync', fd);
    if (!this.skipsDisk) await this.#base.fdatasync(fd);
  }

  async syncDirectory(path: string): Promise<void> {
    this.#enter('syncDirectory', path);
    if (!this.skipsDisk) await this.#base.syncDirectory(path);
  }

  async stat(path: string): Promise<FileStat | undefined> {
    this.#enter('stat', path);
    return this.#base.stat(path);
  }

  async readdir(path: string): Promise<readonly string[]> {
    this.#enter('readdir', path);
    return this.#base.readdir(path);
  }

  async mkdir(path: string): Promise<boolean> {
    this.#enter('mkdir', path);
    return this.#base.mkdir(path);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#enter('rename', from);
    await this.#base.rename(from, to);
  }

  renameSync(from: string, to: string): void {
    this.#enter('renameSync', from);
    this.#base.renameSync(from, to);
  }

  async freeBytes(path: string): Promise<number> {
    this.#enter('freeBytes', path);
    return this.freeSpace ?? this.#base.freeBytes(path);
  }

  async unlink(path: string): Promise<void> {
    this.#enter('unlink', path);
    await this.#base.unlink(path);
  }

  async removeTree(path: string): Promise<void> {
    this.#enter('removeTree', path);
    await this.#base.removeTree(path);
  }

  async tryLock(path: string): Promise<{ release(): void } | undefined> {
    this.#enter('tryLock', path);
    if (!this.skipsDisk) return this.#base.tryLock(path);
    this.#base.closeSync(this.#base.openSync(path, 'create'));
    return { release: () => undefined };
  }
}
