/** The shell command by which a test runs again in the same way. */
import { relative } from 'node:path';

/** Whether this is the long form. */
export const LONG: boolean = process.env.TEST_LONG !== undefined;

export interface RepeatedTest {
  /** Path of its file. */
  readonly file: string;
  /** The names of the groups it is in and its own, with a space between them. */
  readonly fullName: string;
  /** Undefined: nothing in it is left to chance. */
  readonly seed: number | undefined;
}

/** A command for the directory that the run was started in. */
export function repeatCommand({ file, fullName, seed }: RepeatedTest): string {
  const seedSetting = seed === undefined ? [] : [`TEST_SEED=${seed}`];
  const longSetting = LONG ? ['TEST_LONG=1'] : [];
  const run = ['npx vitest run', relative(process.cwd(), file), '-t', quoted(`^${literally(fullName)}$`)];
  return [...seedSetting, ...longSetting, ...run].join(' ');
}

/** A pattern that matches `text` alone. */
export function literally(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** One word to a POSIX shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
