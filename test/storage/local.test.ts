import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { systemClock } from '../../src/core/clock.js';
import { openLocalEngine } from '../../src/storage/local/engine.js';
import { describeConformance } from './conformance.js';

const directories: string[] = [];
afterAll(() => {
  for (const path of directories) rmSync(path, { recursive: true, force: true });
});

function variant(name: string, options: { tailCacheBytes?: number; maxOpenFiles?: number }): void {
  describeConformance(name, async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'tidelog-storage-'));
    directories.push(dataDir);
    const open = () => openLocalEngine({ dataDir, clock: systemClock, ...options });
    let engine = await open();
    const reopen = async () => {
      await engine.close();
      engine = await open();
      return engine;
    };
    return { engine, reopen };
  });
}

variant('local engine', {});
variant('local engine, without tail cache and with two file handles', { tailCacheBytes: 0, maxOpenFiles: 2 });
