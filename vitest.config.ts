import { defineConfig, type ViteUserConfig } from 'vitest/config';
import { SharingLast, sharingFiles } from './test/support/processes.js';

const ALL = ['test/**/*.test.ts'];
const SHARING: string[] = sharingFiles();

const config: ViteUserConfig = defineConfig({
  test: {
    // Besides the usual: what the tests of chance and faults have tried and found.
    reporters: ['default', './test/support/programme-reporter.ts'],
    // Files that start processes and fill disks share two cores: more workers only make each wait.
    maxWorkers: 2,
    sequence: { sequencer: SharingLast },
    // grpc-js writes its own line beside our error.
    env: { GRPC_VERBOSITY: 'NONE' },
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // A condition is waited for as long as a busy machine may need; the default of 1 s is less.
    expect: { poll: { timeout: 15_000, interval: 5 } },
    projects: [
      { extends: true, test: { name: 'own process', include: ALL, exclude: SHARING } },
      { extends: true, test: { name: 'shared process', include: SHARING, isolate: false, restoreMocks: true } },
    ],
  },
});

export default config;
