/** The thread in which compaction runs; see `cleaner-thread.ts`. */
import { parentPort } from 'node:worker_threads';
import { assert } from '../../../core/assert.js';
import { toLogError } from '../../../core/errors.js';
import { type FileSystem, nodeFileSystem } from '../fs.js';
import { type CleanTask, cleanPass } from './clean-pass.js';
import type { CleanerAnswer, CleanerFailure, CleanerRequest } from './cleaner-thread.js';

assert(parentPort !== null, 'this file runs in a worker thread');
const port = parentPort;

/** Reads at once: this thread may wait, and the pool of threads is left to syncs and to readers. */
const fileSystem: FileSystem = {
  ...nodeFileSystem,
  pread: async (fd, buffer, position) => nodeFileSystem.preadSync(fd, buffer, position),
};

let next: ((request: CleanerRequest) => void) | undefined;

function answer(message: CleanerAnswer): void {
  port.postMessage(message);
}

function nextRequest(): Promise<CleanerRequest> {
  return new Promise((resolve) => {
    next = resolve;
  });
}

async function run(task: CleanTask, stop: Int32Array): Promise<void> {
  const groups = cleanPass(fileSystem, task, () => Atomics.load(stop, 0) !== 0);
  for (;;) {
    const result = await groups.next();
    if (result.done) {
      answer({ kind: 'done', summary: result.value });
      return;
    }
    const request = nextRequest();
    answer({ kind: 'group', group: result.value });
    if ((await request).kind === 'next') continue;
    answer({ kind: 'done', summary: undefined });
    return;
  }
}

function failureOf(error: unknown): CleanerFailure {
  const { reason, message, metadata } = toLogError(error);
  return { reason, message, metadata };
}

port.on('message', (request: CleanerRequest) => {
  if (request.kind === 'start') {
    run(request.task, request.stop).catch((error: unknown) => answer({ kind: 'failed', error: failureOf(error) }));
  } else {
    next?.(request);
  }
});
answer({ kind: 'ready' });
