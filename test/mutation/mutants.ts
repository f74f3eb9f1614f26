/** The brokers that the suite must find out. */
import type { Mutant } from './mutant.js';
import { CLASSIC_MUTANTS } from './mutants/classic.js';
import { DURABILITY_MUTANTS } from './mutants/durability.js';
import { EXACTLY_ONCE_MUTANTS } from './mutants/exactly-once.js';
import { GROUP_MUTANTS } from './mutants/groups.js';
import { LIFECYCLE_MUTANTS } from './mutants/lifecycle.js';
import { READING_MUTANTS } from './mutants/reading.js';
import { RECOVERY_MUTANTS } from './mutants/recovery.js';
import { WRITING_MUTANTS } from './mutants/writing.js';

/** Tried in every run. */
export const ALWAYS: readonly Mutant[] = CLASSIC_MUTANTS;

/** Tried in the long form; some of them, by chance, in the short one. */
export const OTHERS: readonly Mutant[] = [
  ...DURABILITY_MUTANTS,
  ...RECOVERY_MUTANTS,
  ...READING_MUTANTS,
  ...WRITING_MUTANTS,
  ...LIFECYCLE_MUTANTS,
  ...GROUP_MUTANTS,
  ...EXACTLY_ONCE_MUTANTS,
];

export const MUTANTS: readonly Mutant[] = [...ALWAYS, ...OTHERS];
