/** File systems of their own for tests of full and failing disks. They need root and the tools of the system. */
import { execFileSync } from 'node:child_process';
import { closeSync, fsyncSync, mkdirSync, mkdtempSync, openSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'vitest';

/** Asks ext4 to stop at once, without writing its journal: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. */
const SHUT_DOWN = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('i', 2))
`;

const PAGE_BYTES = 4096;
/** Each takes some pages of the journal, which has 1,024. */
const SYNCS_OF_A_JOURNAL = 400;

export interface OvercommittedDisk {
  readonly mountPoint: string;
  /** Mount point of the memory that the image lies in. */
  readonly memory: string;
  readonly image: string;
}

/** A directory for mount points and images. Everything is unmounted and gone after `clean`. */
export class Mounts {
  readonly directory: string = mkdtempSync(path.join(tmpdir(), 'tidelog-mounts-'));
  /** Mount points in the order of mounting. */
  readonly #mounted: string[] = [];

  path(...names: string[]): string {
    return path.join(this.directory, ...names);
  }

  /** Mounts memory of a size in bytes. @returns the mount point */
  tmpfs(name: string, sizeBytes: number): string {
    return this.#mount(name, ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs']);
  }

  /** Changes the size of mounted memory. */
  resize(mountPoint: string, sizeBytes: number): void {
    run('mount', '-o', `remount,size=${sizeBytes}`, mountPoint);
  }

  /** Makes a sparse file with an empty ext4 in it, whose journal is as small as can be. */
  makeExt4(image: string, sizeBytes: number): void {
    run('truncate', '-s', String(sizeBytes), image);
    run('mkfs.ext4', '-qF', '-b', String(PAGE_BYTES), '-J', 'size=4', image);
  }

  /** Mounts an image. @returns the mount point */
  loop(name: string, image: string): string {
    return this.#mount(name, ['-o', 'loop', image]);
  }

  /**
   * Mounts an ext4 that claims to be larger than the memory it lies on: its `fdatasync` fails once the memory is used up,
   * and the data is gone, though a second call succeeds. @returns the mount point and the memory below it
   */
  overcommitted(name: string, memoryBytes: number, claimedBytes: number): OvercommittedDisk {
    const memory = this.tmpfs(`${name}-memory`, memoryBytes);
    const image = path.join(memory, 'image');
    this.makeExt4(image, claimedBytes);
    const mountPoint = this.loop(name, image);
    // A loop device takes a request of which a part was written for done: only requests of one page fail as a whole.
    const device = capture('findmnt', '-no', 'SOURCE', mountPoint).trim();
    writeFileSync(`/sys/block/${path.basename(device)}/queue/max_sectors_kb`, String(PAGE_BYTES / 1024));
    useWholeJournal(mountPoint);
    return { mountPoint, memory, image };
  }

  unmount(mountPoint: string): void {
    run('umount', mountPoint);
    this.#mounted.splice(this.#mounted.indexOf(mountPoint), 1);
  }

  clean(): void {
    for (const mountPoint of this.#mounted.splice(0).reverse()) {
      // Lazily, because what a failed test left running may still be in there.
      run('umount', '-l', mountPoint);
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  #mount(name: string, options: readonly string[]): string {
    const mountPoint = this.path(name);
    mkdirSync(mountPoint, { recursive: true });
    run('mount', ...options, mountPoint);
    this.#mounted.push(mountPoint);
    return mountPoint;
  }
}

/** Takes from a mounted ext4 what is not durable, as a power cut does: nothing is written to its image any more. */
export function cutPower(mountPoint: string): void {
  run('python3', '-c', SHUT_DOWN, mountPoint);
}

/** Skips a test, with the reason printed, where the machine does not allow what it needs. */
export function needs(
  context: TestContext,
  { root = false, tools = [] }: { root?: boolean; tools?: readonly string[] },
): void {
  if (root && process.getuid?.() !== 0) skip(context, 'needs root to mount');
  for (const tool of tools) {
    if (!isThere(tool)) skip(context, `needs ${tool}`);
  }
}

/** The result of the first use of something that the machine may refuse even root; skips the test if it does. */
export function unlessRefused<T>(context: TestContext, use: () => T): T {
  try {
    return use();
  } catch (error) {
    return skip(context, `not possible here: ${error instanceof Error ? error.message.trim() : error}`);
  }
}

function skip(context: TestContext, reason: string): never {
  console.warn(`skipped: ${context.task.name}: ${reason}`);
  return context.skip(reason);
}

/** Writes each page of the journal once, so that it has its memory: what fails then is data, not the whole file system. */
function useWholeJournal(mountPoint: string): void {
  const file = path.join(mountPoint, 'journal-filler');
  for (let i = 0; i < SYNCS_OF_A_JOURNAL; i++) {
    const fd = openSync(file, 'w');
    fsyncSync(fd);
    closeSync(fd);
    unlinkSync(file);
  }
}

function isThere(tool: string): boolean {
  try {
    run('sh', '-c', `command -v ${tool}`);
    return true;
  } catch {
    return false;
  }
}

function run(command: string, ...args: string[]): void {
  capture(command, ...args);
}

/** @returns what it printed */
function capture(command: string, ...args: string[]): string {
  return execFileSync(command, args, { stdio: 'pipe', encoding: 'utf8' });
}
