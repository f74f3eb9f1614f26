/** What a deliberately broken broker is: the source as it is but for a few patches, made while a test run loads it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const REPOSITORY: string = join(import.meta.dirname, '../..');

/** Names the mutant that a test run is to load; without it the source stays as it is. */
export const MUTANT_VARIABLE = 'TIDELOG_MUTANT';

export interface Patch {
  /** Relative to the repository. */
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}

/** Part of the suite that must notice. */
export interface Guard {
  /** Relative to the repository. */
  readonly file: string;
  /** Part of the full name of a test, or of several. */
  readonly test: string;
}

export interface Mutant {
  readonly name: string;
  /** Numbers of the invariants that it breaks. */
  readonly invariants: readonly number[];
  readonly patches: readonly Patch[];
  readonly guard: Guard;
}

/**
 * `source` with the patch made.
 * @throws Error when what the patch looks for is not there exactly once
 */
export function patched(source: string, { file, find, replace }: Patch): string {
  const parts = source.split(find);
  if (parts.length === 2) return parts.join(replace);
  throw new Error(
    `A mutant of ${file} does not fit any more: what it replaces occurs ${parts.length - 1} times, not once. ` +
      `Bring it up to date in test/mutation/: ${JSON.stringify(find)}`,
  );
}

/** @throws Error when one of the patches does not fit its file */
export function checkFits(mutant: Mutant): void {
  for (const patch of mutant.patches) patched(readFileSync(join(REPOSITORY, patch.file), 'utf8'), patch);
}
