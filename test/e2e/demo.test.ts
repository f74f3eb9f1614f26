/** The demo, run as `npm run demo` runs it, but on fewer records. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, expect, test } from 'vitest';

const run = promisify(execFile);
const LIMIT_MS = 120_000;
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const temporary = mkdtempSync(path.join(tmpdir(), 'tidelog-demo-test-'));

afterAll(() => rmSync(temporary, { recursive: true, force: true }));

test(
  'the demo passes all its checks, says how fast each step was, and leaves nothing behind (invariant 7)',
  async () => {
    const tsx = createRequire(import.meta.url).resolve('tsx/cli');
    const args = [tsx, path.join(ROOT, 'examples', 'flights-demo.ts'), '--copies', '2'];
    const { stdout, stderr } = await run(process.execPath, args, {
      cwd: ROOT,
      env: { ...process.env, TMPDIR: temporary },
    }).catch((failure: { readonly stdout: string; readonly stderr: string }) => {
      throw new Error(`the demo failed:\n${failure.stdout}\n${failure.stderr}`);
    });
    expect(stderr).toBe('');
    expect(stdout).not.toContain('FAILED');
    expect(stdout.match(/^ {2}ok {6}/gm)).toHaveLength(18);
    expect(stdout).toMatch(/read from the earliest +40,000 records in [\d.]+ s \([\d,]+ records\/s, [\d.]+ MiB\/s\)/);
    expect(stdout).toContain('mean delay per airport is what the file gives');
    expect(stdout).toMatch(/^ +[\d.]+ s {2}lag +[\d,]+ {2}\w+ +worker-1: /m);
    expect(stdout).toMatch(/worker-2 was killed with -9.*\n +[\d.]+ s {2}worker-4 was started/);
    expect(stdout).toMatch(/each of 40,000 records was handled at least once/);
    expect(stdout).toMatch(/[\d,]+ were handled twice/);
    expect(stdout).toContain('All checks passed');
    expect(readdirSync(temporary).filter((name) => name.startsWith('tidelog-demo-'))).toEqual([]);
  },
  LIMIT_MS,
);
