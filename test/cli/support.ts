/** The built command line as child processes. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../support/until.js';

export const LAUNCHER: string = fileURLToPath(new URL('../../dist/cli/tidelog.cjs', import.meta.url));

export interface Finished {
  /** Exit code; null when a signal ended the process. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A `tidelog` process whose output is collected. */
export class Process {
  readonly child: ChildProcessWithoutNullStreams;
  stdout = '';
  stderr = '';
  readonly #closed: Promise<unknown>;

  /** @param wrapper a command that runs the one that follows it, such as a tracer */
  constructor(
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
    wrapper: readonly string[] = [],
  ) {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('TIDELOG_'));
    const env = { ...Object.fromEntries(inherited), ...environment };
    const [command = '', ...rest] = [...wrapper, process.execPath, LAUNCHER, ...args];
    this.child = spawn(command, rest, { env });
    this.#closed = once(this.child, 'close');
    this.child.stdout.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString('utf8');
    });
    this.child.stderr.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString('utf8');
    });
    // A process that ends before it has read its input is for the test to judge.
    this.child.stdin.on('error', () => undefined);
  }

  async finished(): Promise<Finished> {
    await this.#closed;
    return { code: this.child.exitCode, stdout: this.stdout, stderr: this.stderr };
  }

  /** Waits until standard output holds `text`. */
  async printed(text: string): Promise<void> {
    await until(
      () => {
        if (this.child.exitCode !== null) throw new Error(`it ended with ${this.child.exitCode}: ${this.stderr}`);
        return this.stdout.includes(text);
      },
      `${JSON.stringify(text)} was printed`,
    );
  }
}

/** Runs a command to its end. */
export async function tidelog(
  args: readonly string[],
  input: string | Buffer = '',
  environment: Readonly<Record<string, string>> = {},
): Promise<Finished> {
  const running = new Process(args, environment);
  running.child.stdin.end(input);
  return await running.finished();
}

/** `tidelog serve` on ports that the system chooses. */
export class Server {
  readonly process: Process;
  readonly address: string;
  readonly http: string;

  private constructor(running: Process, address: string, http: string) {
    this.process = running;
    this.address = address;
    this.http = http;
  }

  static start(dataDir: string, ...flags: string[]): Promise<Server> {
    return Server.under([], {}, dataDir, ...flags);
  }

  /** As `start`, run by a wrapper: see Process. */
  static async under(
    wrapper: readonly string[],
    environment: Readonly<Record<string, string>>,
    dataDir: string,
    ...flags: string[]
  ): Promise<Server> {
    const ports = ['--listen', '127.0.0.1:0', '--http', '127.0.0.1:0'];
    const running = new Process(['serve', '--data-dir', dataDir, ...ports, ...flags], environment, wrapper);
    await running.printed('\n');
    const match = /serving gRPC on (\S+) and HTTP on (\S+),/.exec(running.stdout);
    if (match === null) throw new Error(`it printed ${running.stdout}`);
    return new Server(running, match[1] ?? '', match[2] ?? '');
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Finished> {
    this.process.child.kill(signal);
    return await this.process.finished();
  }
}

/** A temporary directory and everything that was started, all gone after `clean`. */
export class Workplace {
  readonly directory: string = mkdtempSync(path.join(tmpdir(), 'tidelog-cli-'));
  readonly #processes: Process[] = [];

  path(name: string): string {
    return path.join(this.directory, name);
  }

  start(args: readonly string[], environment?: Readonly<Record<string, string>>): Process {
    const running = new Process(args, environment);
    this.#processes.push(running);
    return running;
  }

  async serve(name: string, ...flags: string[]): Promise<Server> {
    const server = await Server.start(this.path(name), ...flags);
    this.#processes.push(server.process);
    return server;
  }

  async clean(): Promise<void> {
    for (const { child } of this.#processes) if (child.exitCode === null) child.kill('SIGKILL');
    await Promise.all(this.#processes.map((running) => running.finished()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}
