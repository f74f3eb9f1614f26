/** Runs part of the suite against a broker that is broken on purpose; see `gate.test.ts`. */
import { relative } from 'node:path';
import { defineConfig, type Plugin, type ViteUserConfig } from 'vitest/config';
import { MUTANT_VARIABLE, type Patch, patched, REPOSITORY } from './mutant.js';
import { MUTANTS } from './mutants.js';

function patchesOf(name: string | undefined): readonly Patch[] {
  if (name === undefined) return [];
  const mutant = MUTANTS.find((one) => one.name === name);
  if (mutant === undefined) throw new Error(`There is no mutant of the name ${JSON.stringify(name)}.`);
  return mutant.patches;
}

function patchSource(patches: readonly Patch[]): Plugin {
  return {
    name: 'tidelog-mutant',
    enforce: 'pre',
    transform(source, id) {
      const file = relative(REPOSITORY, id);
      const own = patches.filter((patch) => patch.file === file);
      return own.length === 0 ? undefined : own.reduce(patched, source);
    },
  };
}

const config: ViteUserConfig = defineConfig({
  root: REPOSITORY,
  plugins: [patchSource(patchesOf(process.env[MUTANT_VARIABLE]))],
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/mutation/**'],
    maxWorkers: 1,
    // Ended together with their process.
    pool: 'threads',
    env: { GRPC_VERBOSITY: 'NONE' },
    testTimeout: 30_000,
    expect: { poll: { timeout: 15_000, interval: 5 } },
  },
});

export default config;
