/** fast-check with a seed that is told when a property fails, and taken from TEST_SEED where it is given. */
import fc from 'fast-check';
import { beforeEach } from 'vitest';
import { GIVEN_SEED } from './programme.js';

const seed: number = GIVEN_SEED ?? Math.floor(Math.random() * 2 ** 31);

fc.configureGlobal({ seed });

beforeEach(({ task }) => {
  task.meta.propertySeed = seed;
});

declare module 'vitest' {
  interface TaskMeta {
    propertySeed?: number;
  }
}

export { fc };
