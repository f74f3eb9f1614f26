/** Where compaction runs. The thread itself exists only once the sources are compiled, so it is taken from there. */
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { systemClock } from '../../src/core/clock.js';
import { type Epoch, toOffset } from '../../src/core/types.js';
import { openLocalEngine } from '../../src/storage/local/engine.js';
import { type RecordingLogger, recordingLogger } from '../support/recording-logger.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { batchAt, CONFIG, EPOCH, partition } from './support.js';

const compiled = {
  engine: new URL('../../dist/storage/local/engine.js', import.meta.url).href,
  cleaner: new URL('../../dist/storage/local/cleaning/cleaner-thread.js', import.meta.url).href,
};

type EngineModule = typeof import('../../src/storage/local/engine.js');
type CleanerModule = typeof import('../../src/storage/local/cleaning/cleaner-thread.js');

async function compact(
  open: EngineModule['openLocalEngine'],
  dataDir: string,
  logger: RecordingLogger,
): Promise<number> {
  const engine = await open({ dataDir, clock: systemClock, logger });
  onTestFinished(() => engine.close());
  const log = await engine.open(partition(), EPOCH as Epoch, { ...CONFIG, segmentBytes: 2000 });
  for (let i = 0; i < 60; i++) await log.append([batchAt(i, { bytes: 50 })], toOffset(i));
  await log.flush(log.endOffset);
  const result = await log.compact({
    upTo: log.endOffset,
    nowMs: systemClock.now(),
    deleteRetentionMs: 0,
    producerExpirationMs: 0,
    maxMapBytes: 1 << 20,
  });
  // The records have no keys: nothing of them is kept.
  expect(result.recordsAfter).toBe(0);
  return result.recordsBefore;
}

test('compiled, it is a thread of its own', async () => {
  const { openLocalEngine: open } = (await import(compiled.engine)) as EngineModule;
  const logger = recordingLogger();
  expect(await compact(open, temporaryDirectory(), logger)).toBeGreaterThan(40);
  expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([]);
});

test('where the file of the thread is missing, it is the event loop, and the log says so once', async () => {
  const logger = recordingLogger();
  expect(await compact(openLocalEngine, temporaryDirectory(), logger)).toBeGreaterThan(40);
  expect(logger.messages('warn')).toEqual([
    'compaction has no thread of its own: it runs on the event loop, in small pieces',
  ]);
});

test('a failure in the thread comes back with its reason, and the thread serves on', async () => {
  const { CleanerThread } = (await import(compiled.cleaner)) as CleanerModule;
  const { nodeFileSystem } = (await import(new URL('../../dist/storage/local/fs.js', import.meta.url).href)) as {
    nodeFileSystem: ConstructorParameters<typeof CleanerThread>[0];
  };
  const cleaner = new CleanerThread(nodeFileSystem, systemClock, recordingLogger());
  onTestFinished(() => cleaner.close());
  const directory = temporaryDirectory();
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const path = join(directory, 'missing.log');
  const task = {
    directory,
    sources: [
      {
        path,
        offsetIndexPath: path,
        offsetIndexCrc: 0,
        baseOffset: 0,
        nextOffset: 1,
        sizeInBytes: 100,
        cleaned: false,
        epochs: [],
      },
    ],
    firstDirty: 0,
    nowMs: 0,
    deleteRetentionMs: 0,
    producerExpirationMs: 0,
    maxMapBytes: 1000,
    segmentBytes: 1000,
  };
  for (let i = 0; i < 2; i++) {
    await expect(cleaner.run(task, stop).next()).rejects.toMatchObject({
      reason: 'STORAGE_ERROR',
      message: expect.stringContaining(path),
    });
  }
  await cleaner.close();
  await expect(cleaner.run(task, stop).next()).rejects.toMatchObject({ reason: 'CLOSED' });
});
