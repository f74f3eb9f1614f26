/**
 * A disk in memory that knows what a power cut may take. Contents of a file become durable by `fdatasync`, entries of a
 * directory by `syncDirectory`, neither by the other, and each only when the call has resolved. What a cut leaves of the
 * rest, `survivors` tells:
 *
 * - of each file the first few of its changes since the last sync, the last of them perhaps by half, or only by its size;
 *   where the disk reorders sectors, any of the sectors written since, and any of the sizes that the file had since;
 * - of each directory the first few of the changes that concern one file, whatever becomes of those of other files.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { FileStat, FileSystem, OpenMode } from '../../src/storage/local/fs.js';
import {
  type Choose,
  changeContents,
  type FileContents,
  newContents,
  survivingContents,
  survivingSectors,
  syncedContents,
} from './power-loss-contents.js';

export type { Choose } from './power-loss-contents.js';

/** Contents by path; directories end in a slash. Buffers are never changed in place, so images share them. */
export type DiskImage = ReadonlyMap<string, Buffer>;

/** A name that a node loses, one that it gets, or both. */
interface EntryChange {
  readonly node: DiskNode;
  readonly from?: string;
  readonly to?: string;
}

interface FileNode extends FileContents {
  readonly kind: 'file';
}

interface DirectoryNode {
  readonly kind: 'directory';
  durable: Map<string, DiskNode>;
  entries: Map<string, DiskNode>;
  /** Since the last sync. */
  changes: EntryChange[];
  /** Changes that are durable, from the first on. */
  syncedCount: number;
}

type DiskNode = FileNode | DirectoryNode;

const EMPTY = Buffer.alloc(0);

function newFile(contents: Buffer = EMPTY): FileNode {
  return { kind: 'file', ...newContents(contents) };
}

function newDirectory(): DirectoryNode {
  return { kind: 'directory', durable: new Map(), entries: new Map(), changes: [], syncedCount: 0 };
}

function renamed(entries: Map<string, DiskNode>, { node, from, to }: EntryChange): void {
  if (from !== undefined && entries.get(from) === node) entries.delete(from);
  if (to !== undefined) entries.set(to, node);
}

function fileError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export class PowerLossDisk implements FileSystem {
  /** Called before each call that changes anything, syncs included, and again before a sync has its effect. */
  beforeChange: (name: keyof FileSystem, path: string) => void = () => undefined;
  readonly #modifiedMs: number;
  readonly #root: DirectoryNode = newDirectory();
  readonly #open = new Map<number, { readonly path: string; readonly node: FileNode }>();
  #nextFd = 3;

  /** @param image what the disk holds, all of it durable */
  constructor(modifiedMs: number, image: DiskImage = new Map()) {
    this.#modifiedMs = modifiedMs;
    for (const [path, contents] of image) {
      if (path.endsWith('/')) this.#makeDurable(path.slice(0, -1), newDirectory());
      else this.#makeDurable(path, newFile(contents));
    }
  }

  /**
   * One of the images that a power cut may leave.
   * @param sectorBytes size of the sectors that the disk writes in any order; undefined: it keeps the order of each file
   */
  survivors(choose: Choose, sectorBytes?: number): DiskImage {
    const image = new Map<string, Buffer>();
    const left = (node: FileNode): Buffer =>
      sectorBytes === undefined ? survivingContents(node, choose) : survivingSectors(node, choose, sectorBytes);
    this.#collect(this.#root, '', image, choose, left);
    return image;
  }

  /** All of it, as a process leaves it that merely ends. */
  contents(): DiskImage {
    return this.survivors((limit) => limit);
  }

  /** What the hardest power cut leaves: nothing that was not synced. */
  durable(): DiskImage {
    return this.survivors(() => 0);
  }

  /** How many choices `survivors` makes, and the limit of each. */
  limits(sectorBytes?: number): readonly number[] {
    const limits: number[] = [];
    this.survivors((limit) => {
      limits.push(limit);
      return limit;
    }, sectorBytes);
    return limits;
  }

  #collect(
    directory: DirectoryNode,
    path: string,
    image: Map<string, Buffer>,
    choose: Choose,
    left: (node: FileNode) => Buffer,
  ): void {
    for (const [name, node] of survivingEntries(directory, choose)) {
      const at = `${path}/${name}`;
      if (node.kind === 'file') image.set(at, left(node));
      else {
        image.set(`${at}/`, EMPTY);
        this.#collect(node, at, image, choose, left);
      }
    }
  }

  openSync(path: string, mode: OpenMode): number {
    const existing = this.#find(path);
    if (existing?.kind === 'directory') throw fileError('EISDIR', path);
    if (!existing && mode !== 'create') throw fileError('ENOENT', path);
    const node = mode === 'create' ? this.#create(path, existing) : existing!;
    this.#open.set(this.#nextFd, { path, node });
    return this.#nextFd++;
  }

  closeSync(fd: number): void {
    this.#open.delete(fd);
  }

  async pread(fd: number, buffer: Uint8Array, position: number): Promise<number> {
    return this.preadSync(fd, buffer, position);
  }

  preadSync(fd: number, buffer: Uint8Array, position: number): number {
    return this.#opened(fd).node.contents.copy(buffer, 0, position);
  }

  writevSync(fd: number, buffers: readonly Uint8Array[], position: number): number {
    const { path, node } = this.#opened(fd);
    this.beforeChange('writevSync', path);
    const bytes = Buffer.concat(buffers);
    changeContents(node, { kind: 'write', position, bytes });
    return bytes.length;
  }

  ftruncateSync(fd: number, size: number): void {
    const { path, node } = this.#opened(fd);
    this.beforeChange('ftruncateSync', path);
    changeContents(node, { kind: 'truncate', size });
  }

  async fdatasync(fd: number): Promise<void> {
    const { path, node } = this.#opened(fd);
    this.beforeChange('fdatasync', path);
    const { contents } = node;
    const covered = node.syncedCount + node.changes.length;
    await nextTurn();
    this.beforeChange('fdatasync', path);
    syncedContents(node, contents, covered);
  }

  async syncDirectory(path: string): Promise<void> {
    this.beforeChange('syncDirectory', path);
    const directory = this.#directory(path);
    const entries = new Map(directory.entries);
    const covered = directory.syncedCount + directory.changes.length;
    await nextTurn();
    this.beforeChange('syncDirectory', path);
    // One that began later, and covers more, may have ended earlier.
    if (covered <= directory.syncedCount) return;
    directory.durable = entries;
    directory.changes = directory.changes.slice(covered - directory.syncedCount);
    directory.syncedCount = covered;
  }

  async stat(path: string): Promise<FileStat | undefined> {
    const node = this.#find(path);
    if (!node) return undefined;
    const isDirectory = node.kind === 'directory';
    return { size: isDirectory ? 0 : node.contents.length, modifiedMs: this.#modifiedMs, isDirectory };
  }

  async readdir(path: string): Promise<readonly string[]> {
    const node = this.#find(path);
    return node?.kind === 'directory' ? [...node.entries.keys()] : [];
  }

  async mkdir(path: string): Promise<boolean> {
    if (this.#find(path)) return false;
    const [parent, name] = divided(path);
    if (parent !== '') await this.mkdir(parent);
    this.beforeChange('mkdir', path);
    this.#changeEntry(this.#directory(parent), { node: newDirectory(), to: name });
    return true;
  }

  async rename(from: string, to: string): Promise<void> {
    this.renameSync(from, to);
  }

  renameSync(from: string, to: string): void {
    const [parent, name] = divided(from);
    const [newParent, newName] = divided(to);
    if (parent !== newParent) throw new Error(`a rename from ${parent} to ${newParent} is not modelled`);
    const node = this.#find(from);
    if (!node) throw fileError('ENOENT', from);
    this.beforeChange('renameSync', from);
    this.#changeEntry(this.#directory(parent), { node, from: name, to: newName });
  }

  async unlink(path: string): Promise<void> {
    if (this.#find(path)) await this.removeTree(path);
  }

  async removeTree(path: string): Promise<void> {
    const node = this.#find(path);
    if (!node) return;
    this.beforeChange('unlink', path);
    const [parent, name] = divided(path);
    this.#changeEntry(this.#directory(parent), { node, from: name });
  }

  async freeBytes(): Promise<number> {
    return Number.MAX_SAFE_INTEGER;
  }

  async tryLock(path: string): Promise<{ release(): void }> {
    if (!this.#find(path)) this.closeSync(this.openSync(path, 'create'));
    return { release: () => undefined };
  }

  #create(path: string, existing: FileNode | undefined): FileNode {
    if (existing && existing.contents.length === 0) return existing;
    this.beforeChange('openSync', path);
    if (existing) {
      changeContents(existing, { kind: 'truncate', size: 0 });
      return existing;
    }
    const [parent, name] = divided(path);
    const node = newFile();
    this.#changeEntry(this.#directory(parent), { node, to: name });
    return node;
  }

  #changeEntry(directory: DirectoryNode, entryChange: EntryChange): void {
    renamed(directory.entries, entryChange);
    directory.changes.push(entryChange);
  }

  #makeDurable(path: string, node: DiskNode): void {
    const [parent, name] = divided(path);
    const directory = this.#directory(parent);
    directory.entries.set(name, node);
    directory.durable.set(name, node);
  }

  #opened(fd: number): { readonly path: string; readonly node: FileNode } {
    const opened = this.#open.get(fd);
    if (!opened) throw fileError('EBADF', String(fd));
    return opened;
  }

  #directory(path: string): DirectoryNode {
    const node = this.#find(path);
    if (node?.kind !== 'directory') throw fileError('ENOENT', path);
    return node;
  }

  #find(path: string): DiskNode | undefined {
    let node: DiskNode = this.#root;
    for (const name of namesIn(path)) {
      if (node.kind !== 'directory') return undefined;
      const next = node.entries.get(name);
      if (!next) return undefined;
      node = next;
    }
    return node;
  }
}

function survivingEntries({ durable, changes }: DirectoryNode, choose: Choose): ReadonlyMap<string, DiskNode> {
  if (changes.length === 0) return durable;
  const counts = new Map<DiskNode, number>();
  for (const { node } of changes) counts.set(node, (counts.get(node) ?? 0) + 1);
  const left = new Map([...counts].map(([node, count]) => [node, choose(count)]));
  const entries = new Map(durable);
  for (const entryChange of changes) {
    const count = left.get(entryChange.node)!;
    if (count === 0) continue;
    left.set(entryChange.node, count - 1);
    renamed(entries, entryChange);
  }
  return entries;
}

const NAMES = new Map<string, readonly string[]>();

/** The names in a path. Remembered: there are few paths and very many calls. */
function namesIn(path: string): readonly string[] {
  let names = NAMES.get(path);
  if (names === undefined) {
    names = path.split('/').filter((name) => name !== '');
    NAMES.set(path, names);
  }
  return names;
}

function divided(path: string): readonly [parent: string, name: string] {
  const slash = path.lastIndexOf('/');
  return [path.slice(0, slash), path.slice(slash + 1)];
}
