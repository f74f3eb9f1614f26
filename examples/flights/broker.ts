/** The broker of the demo: the real command line in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';

const START_LIMIT_MS = 20_000;
const SERVING = /serving gRPC on (\S+)/;

/** `tidelog serve` on a port that the system chooses. */
export class DemoBroker {
  readonly address: string;
  /** From the start of the process until it served. */
  readonly startMs: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, address: string, startMs: number) {
    this.#child = child;
    this.address = address;
    this.startMs = startMs;
  }

  static async start(dataDir: string): Promise<DemoBroker> {
    const manifest = createRequire(import.meta.url).resolve('tidelog/package.json');
    const launcher = path.join(path.dirname(manifest), 'dist', 'cli', 'tidelog.cjs');
    const flags = ['--data-dir', dataDir, '--listen', '127.0.0.1:0', '--http', '127.0.0.1:0', '--log-level', 'warn'];
    // Settings of the user's own broker are none of the demo's.
    const ours = Object.entries(process.env).filter(([name]) => !name.startsWith('TIDELOG_'));
    const startedMs = performance.now();
    const child = spawn(process.execPath, [launcher, 'serve', ...flags], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: Object.fromEntries(ours),
    });
    const address = await servingAddress(child);
    return new DemoBroker(child, address, performance.now() - startedMs);
  }

  /** Stops the broker as a supervisor would. Resolves to its exit code. */
  async stop(): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await exited;
    }
    return this.#child.exitCode;
  }

  /** For when the demo itself must end at once. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/** The address in the line that the broker prints once it serves. */
async function servingAddress(child: ChildProcess): Promise<string> {
  return await new Promise((resolve, reject) => {
    let output = '';
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`the broker did not serve within ${START_LIMIT_MS} ms`));
    }, START_LIMIT_MS);
    child.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`the broker ended with exit code ${code} before it served`));
    });
    child.stdout?.on('data', (chunk: Buffer) => {
      output += chunk.toString('utf8');
      const address = SERVING.exec(output)?.[1];
      if (address === undefined || !output.includes('\n')) return;
      clearTimeout(timer);
      resolve(address);
    });
  });
}
