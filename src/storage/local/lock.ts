/**
 * Taking a file for one process, such that the kernel itself lets go of it when the process ends, `kill -9` included.
 * A file that merely exists, or names a process id, would be stale after that.
 *
 * - macOS, FreeBSD: `O_EXLOCK` when opening (see `fs.ts`).
 * - Linux: `flock(2)` on our own descriptor, by way of the `flock` tool (util-linux, busybox) that inherits it; the lock
 *   belongs to the open file, so it stays when the tool has ended.
 * - Where that tool is missing: an abstract unix socket (Linux) or a named pipe (Windows) whose name is made of the
 *   path. It guards against processes of the same network namespace only.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:net';

/** Held until released or until the process ends. */
export interface FileLock {
  release(): void;
}

/** What the `flock` tool exits with when another open file holds the lock. */
const FLOCK_CONFLICT = 1;
/** The descriptor under which the tool inherits ours: the first after the standard three. */
const INHERITED_FD = 3;

/**
 * Locks the file behind `fd`.
 * @returns undefined when another holder has it; releasing does not close `fd`, though closing `fd` releases
 * @throws Error when no way of locking works here
 */
export async function lockDescriptor(fd: number, path: string): Promise<FileLock | undefined> {
  const tool = spawnSync('flock', ['-n', '-x', String(INHERITED_FD)], { stdio: ['ignore', 'ignore', 'ignore', fd] });
  if (tool.status === 0) return { release: () => undefined };
  if (tool.status === FLOCK_CONFLICT) return undefined;
  return lockByName(path);
}

/** Locks a name in a space that the kernel empties of the dead. */
export function lockByName(path: string): Promise<FileLock | undefined> {
  const name = `tidelog-${createHash('sha256').update(path).digest('hex').slice(0, 32)}`;
  const address = process.platform === 'win32' ? `\\\\.\\pipe\\${name}` : `\0${name}`;
  return new Promise((resolve, reject) => {
    const server: Server = createServer((socket) => socket.destroy());
    server.once('error', (error: Error & { code?: string }) => {
      if (error.code === 'EADDRINUSE') resolve(undefined);
      else reject(error);
    });
    server.listen(address, () => {
      server.unref();
      resolve({ release: () => void server.close() });
    });
  });
}
