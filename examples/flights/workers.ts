/** The processes of the demo's group. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type HandledRange, handledRanges } from './group-terms.js';

const SCRIPT = fileURLToPath(new URL('worker.ts', import.meta.url));

export class DemoWorker {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #file: string;

  private constructor(name: string, child: ChildProcess, file: string) {
    this.name = name;
    this.#child = child;
    this.#file = file;
  }

  /** @param directory where it writes what it has handled */
  static start(broker: string, name: string, directory: string, recordsPerSecond: number): DemoWorker {
    const file = path.join(directory, name);
    const args = ['--import', 'tsx', SCRIPT, broker, name, file, String(recordsPerSecond)];
    return new DemoWorker(name, spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] }), file);
  }

  get hasHandled(): boolean {
    return (statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0) > 0;
  }

  handled(): readonly HandledRange[] {
    return this.hasHandled ? handledRanges(readFileSync(this.#file, 'utf8')) : [];
  }

  /** Leaves in order. Resolves to the exit code. */
  async stop(): Promise<number | null> {
    await this.#end('SIGTERM');
    return this.#child.exitCode;
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }
}
