/** File systems of their own for tests of full and failing disks. They need root and the tools of the system. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'vitest';

/** Asks ext4 to stop at once, without writing its journal: `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. */
const SHUT_DOWN = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('i', 2))
`;

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

  /** Makes a sparse file with an empty ext4 in it. */
  makeExt4(image: string, sizeBytes: number): void {
    run('truncate', '-s', String(sizeBytes), image);
    run('mkfs.ext4', '-qF', image);
  }

  /** Mounts an image. @returns the mount point */
  loop(name: string, image: string): string {
    return this.#mount(name, ['-o', 'loop', image]);
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

function isThere(tool: string): boolean {
  try {
    run('sh', '-c', `command -v ${tool}`);
    return true;
  } catch {
    return false;
  }
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: 'pipe' });
}
