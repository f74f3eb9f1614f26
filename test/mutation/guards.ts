/** Runs tests of the suite in a process of their own, against the broker as it is or against a mutant. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import * as v from 'valibot';
import { literally } from '../support/repeat.js';
import { type Guard, MUTANT_VARIABLE, REPOSITORY } from './mutant.js';

/** A test that was run. */
export interface GuardResult {
  /** Relative to the repository. */
  readonly file: string;
  readonly test: string;
  readonly passed: boolean;
  /** First line of why it failed. */
  readonly why: string;
}

/** A child that takes longer is ended, in ms. A machine that is busy with other tests needs several times the usual. */
const MAX_RUN_MS = 120_000;

const VITEST = join(REPOSITORY, 'node_modules/vitest/vitest.mjs');

const reportSchema = v.object({
  testResults: v.array(
    v.object({
      name: v.string(),
      message: v.string(),
      assertionResults: v.array(
        v.object({
          fullName: v.string(),
          status: v.string(),
          failureMessages: v.array(v.string()),
        }),
      ),
    }),
  ),
});

export interface GuardRun {
  /** The mutant's name; undefined for the broker as it is. */
  readonly mutant: string | undefined;
  /** Whether to stop at the first test that fails. */
  readonly stopEarly: boolean;
  /** Ends the child. */
  readonly signal: AbortSignal;
}

/**
 * Runs the tests of all `guards`.
 * @throws Error when one of their files cannot be loaded, or the child ends without a report
 */
export async function runGuards(guards: readonly Guard[], run: GuardRun): Promise<GuardResult[]> {
  const directory = mkdtempSync(join(tmpdir(), 'tidelog-mutation-'));
  try {
    const report = join(directory, 'report.json');
    const output = await runVitest([...argumentsFor(guards, run), `--outputFile=${report}`], run);
    return resultsOf(report, output);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function argumentsFor(guards: readonly Guard[], { stopEarly }: GuardRun): string[] {
  const files = [...new Set(guards.map(({ file }) => file))];
  const pattern = guards.map(({ test }) => literally(test)).join('|');
  const bail = stopEarly ? ['--bail=1'] : [];
  return ['run', '--config=test/mutation/vitest.config.ts', '--reporter=json', ...bail, '-t', pattern, ...files];
}

/** Resolves to what the child printed. */
async function runVitest(args: readonly string[], { mutant, signal }: GuardRun): Promise<string> {
  const child = spawn(process.execPath, [VITEST, ...args], {
    cwd: REPOSITORY,
    env: environmentFor(mutant),
    signal,
    timeout: MAX_RUN_MS,
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await once(child, 'close');
  return output;
}

/** The short form, and nothing of what this run of Vitest tells its own workers. */
function environmentFor(mutant: string | undefined): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(VITEST|TEST_|TEST$)/.test(name));
  return { ...Object.fromEntries(inherited), ...(mutant === undefined ? {} : { [MUTANT_VARIABLE]: mutant }) };
}

function resultsOf(report: string, output: string): GuardResult[] {
  const { testResults } = v.parse(reportSchema, readReport(report, output));
  const results: GuardResult[] = [];
  for (const { name, message, assertionResults } of testResults) {
    const file = relative(REPOSITORY, name);
    if (message !== '') throw new Error(`${file} could not be run: ${message}`);
    for (const { fullName, status, failureMessages } of assertionResults) {
      if (status !== 'passed' && status !== 'failed') continue;
      const why = failureMessages[0]?.split('\n')[0] ?? '';
      results.push({ file, test: fullName, passed: status === 'passed', why });
    }
  }
  return results;
}

function readReport(path: string, output: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`A test run ended without a report. It said:\n${output}`, { cause: error });
  }
}
