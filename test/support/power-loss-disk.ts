/**
 * A disk in memory that knows what a power cut may take: the contents of a file become durable by `fdatasync`, the
 * entries of a directory by `syncDirectory`, neither by the other. What a cut leaves of the rest, `survivors` tells:
 *
 * - of each file the first few of its changes since the last sync, the last one of them perhaps by half;
 * - of each directory the first few of the changes that concern one file, whatever becomes of those of other files.
 */
import type { FileStat, FileSystem, OpenMode } from '../../src/storage/local/fs.js';

/** Contents by path; directories end in a slash. Buffers are never changed in place, so images share them. */
export type DiskImage = ReadonlyMap<string, Buffer>;

/** How many of the possible losses of one unit survive, from 0 to `limit`. */
export type Choose = (limit: number) => number;

type ContentChange =
  | { readonly kind: 'write'; readonly position: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly size: number };

/** A name that a node loses, one that it gets, or both. */
interface EntryChange {
  readonly node: DiskNode;
  readonly from?: string;
  readonly to?: string;
}

interface FileNode {
  readonly kind: 'file';
  durable: Buffer;
  contents: Buffer;
  changes: ContentChange[];
}

interface DirectoryNode {
  readonly kind: 'directory';
  durable: Map<string, DiskNode>;
  entries: Map<string, DiskNode>;
  changes: EntryChange[];
}

type DiskNode = FileNode | DirectoryNode;

const EMPTY = Buffer.alloc(0);

function newFile(contents: Buffer = EMPTY): FileNode {
  return { kind: 'file', durable: contents, contents, changes: [] };
}

function newDirectory(): DirectoryNode {
  return { kind: 'directory', durable: new Map(), entries: new Map(), changes: [] };
}

function applied(contents: Buffer, change: ContentChange): Buffer {
  const result = Buffer.alloc(change.kind === 'truncate' ? change.size : Math.max(contents.length, endOf(change)));
  contents.copy(result);
  if (change.kind === 'write') change.bytes.copy(result, change.position);
  return result;
}

function endOf({ position, bytes }: { readonly position: number; readonly bytes: Buffer }): number {
  return position + bytes.length;
}

/** The first half of a write; of anything else nothing. */
function half(change: ContentChange): ContentChange | undefined {
  if (change.kind !== 'write') return undefined;
  return { ...change, bytes: change.bytes.subarray(0, change.bytes.length >> 1) };
}

function renamed(entries: Map<string, DiskNode>, { node, from, to }: EntryChange): void {
  if (from !== undefined && entries.get(from) === node) entries.delete(from);
  if (to !== undefined) entries.set(to, node);
}

function fileError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export class PowerLossDisk implements FileSystem {
  /** Called before each call that changes anything, syncs included. */
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

  /** One of the images that a power cut may leave. */
  survivors(choose: Choose): DiskImage {
    const image = new Map<string, Buffer>();
    this.#collect(this.#root, '', image, choose, new Map());
    return image;
  }

  /** How many choices `survivors` makes, and the limit of each. */
  limits(): readonly number[] {
    const limits: number[] = [];
    this.survivors((limit) => {
      limits.push(limit);
      return limit;
    });
    return limits;
  }

  #collect(
    directory: DirectoryNode,
    path: string,
    image: Map<string, Buffer>,
    choose: Choose,
    files: Map<FileNode, Buffer>,
  ): void {
    for (const [name, node] of survivingEntries(directory, choose)) {
      const at = `${path}/${name}`;
      if (node.kind === 'directory') {
        image.set(`${at}/`, EMPTY);
        this.#collect(node, at, image, choose, files);
        continue;
      }
      const contents = files.get(node) ?? survivingContents(node, choose);
      files.set(node, contents);
      image.set(at, contents);
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
    change(node, { kind: 'write', position, bytes });
    return bytes.length;
  }

  ftruncateSync(fd: number, size: number): void {
    const { path, node } = this.#opened(fd);
    this.beforeChange('ftruncateSync', path);
    change(node, { kind: 'truncate', size });
  }

  async fdatasync(fd: number): Promise<void> {
    const { path, node } = this.#opened(fd);
    this.beforeChange('fdatasync', path);
    node.durable = node.contents;
    node.changes = [];
  }

  async syncDirectory(path: string): Promise<void> {
    this.beforeChange('syncDirectory', path);
    const directory = this.#directory(path);
    directory.durable = new Map(directory.entries);
    directory.changes = [];
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
    this.beforeChange('renameSync', from);
    const [parent, name] = divided(from);
    const [newParent, newName] = divided(to);
    if (parent !== newParent) throw new Error(`a rename from ${parent} to ${newParent} is not modelled`);
    const node = this.#find(from);
    if (!node) throw fileError('ENOENT', from);
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
    this.closeSync(this.openSync(path, 'create'));
    return { release: () => undefined };
  }

  #create(path: string, existing: FileNode | undefined): FileNode {
    if (existing && existing.contents.length === 0) return existing;
    this.beforeChange('openSync', path);
    if (existing) {
      change(existing, { kind: 'truncate', size: 0 });
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
    for (const name of path.split('/')) {
      if (name === '') continue;
      if (node.kind !== 'directory') return undefined;
      const next = node.entries.get(name);
      if (!next) return undefined;
      node = next;
    }
    return node;
  }
}

function change(node: FileNode, contentChange: ContentChange): void {
  node.contents = applied(node.contents, contentChange);
  node.changes.push(contentChange);
}

function survivingContents({ durable, changes }: FileNode, choose: Choose): Buffer {
  if (changes.length === 0) return durable;
  // Two steps for each change: half of it, and all of it.
  const steps = choose(changes.length * 2);
  let contents = durable;
  for (const whole of changes.slice(0, steps >> 1)) contents = applied(contents, whole);
  const torn = steps % 2 === 1 ? half(changes[steps >> 1]!) : undefined;
  return torn ? applied(contents, torn) : contents;
}

function survivingEntries({ durable, changes }: DirectoryNode, choose: Choose): Map<string, DiskNode> {
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

function divided(path: string): readonly [parent: string, name: string] {
  const slash = path.lastIndexOf('/');
  return [path.slice(0, slash), path.slice(slash + 1)];
}
