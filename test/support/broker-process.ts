/** The real command line as a child process on ephemeral ports, as a user would run it. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';

const LAUNCHER = fileURLToPath(new URL('../../dist/cli/tidelog.cjs', import.meta.url));
const LOOP_WATCH = new URL('./loop-watch.mjs', import.meta.url).href;
const START_LIMIT_MS = 60_000;

/** What a watched broker tells of itself. */
export interface Vitals {
  /** The longest time that one turn of the event loop has taken, in CPU time of its thread, in ms. */
  readonly longestMs: number;
  readonly residentBytes: number;
  /** What JavaScript holds: its heap, and the buffers outside of it. */
  readonly heldBytes: number;
}

export interface BrokerProcessOptions {
  /** Whether `vitals` can be asked. */
  readonly watched?: boolean;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  server.close();
  await once(server, 'close');
  if (bound === null || typeof bound === 'string') throw new Error('no port');
  return bound.port;
}

/** Resolves when grpc.health.v1 answers SERVING. */
async function serving(address: string, child: ChildProcess): Promise<void> {
  const health = new Client(address, credentials.createInsecure(), {
    'grpc.initial_reconnect_backoff_ms': 10,
    'grpc.max_reconnect_backoff_ms': 20,
    'grpc.min_reconnect_backoff_ms': 10,
  });
  const limit = performance.now() + START_LIMIT_MS;
  const empty = (): Buffer => Buffer.alloc(0);
  try {
    for (;;) {
      if (child.exitCode !== null) throw new Error(`the broker exited with ${child.exitCode}`);
      if (performance.now() > limit) throw new Error('the broker did not answer in time');
      const status = await new Promise<number | undefined>((resolve) => {
        health.makeUnaryRequest(
          '/grpc.health.v1.Health/Check',
          empty,
          (bytes) => bytes[1],
          {},
          { deadline: Date.now() + 1000 },
          (error, value) => resolve(error === null ? value : undefined),
        );
      });
      if (status === 1) return;
      await sleep(2);
    }
  } finally {
    health.close();
  }
}

function spawnBroker(
  dataDir: string,
  address: string,
  flags: readonly string[],
  { watched = false }: BrokerProcessOptions = {},
): ChildProcess {
  const node = watched ? ['--import', LOOP_WATCH] : [];
  const args = [...node, LAUNCHER, 'serve', '--data-dir', dataDir, '--listen', address, '--http', '127.0.0.1:0'];
  const command = [...args, '--log-level', 'warn', ...flags];
  const stdio: StdioOptions = watched ? ['ignore', 'ignore', 'inherit', 'ipc'] : ['ignore', 'ignore', 'inherit'];
  return spawn(process.execPath, command, { stdio });
}

export class BrokerProcess {
  readonly address: string;
  readonly dataDir: string;
  /** From the start of the process to SERVING. */
  readonly startSeconds: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, address: string, dataDir: string, startSeconds: number) {
    this.#child = child;
    this.address = address;
    this.dataDir = dataDir;
    this.startSeconds = startSeconds;
  }

  static temporaryDirectory(): string {
    return mkdtempSync(path.join(tmpdir(), 'tidelog-'));
  }

  /** @param flags of `tidelog serve` besides those that every broker gets here */
  static async start(
    dataDir: string = BrokerProcess.temporaryDirectory(),
    flags: readonly string[] = [],
    options: BrokerProcessOptions = {},
  ): Promise<BrokerProcess> {
    const address = `127.0.0.1:${await freePort()}`;
    const started = performance.now();
    const child = spawnBroker(dataDir, address, flags, options);
    await serving(address, child);
    return new BrokerProcess(child, address, dataDir, (performance.now() - started) / 1000);
  }

  /** Starts a broker and kills it this long after, whatever it is doing by then. */
  static async startAndKill(dataDir: string, afterMs: number): Promise<void> {
    const child = spawnBroker(dataDir, `127.0.0.1:${await freePort()}`, []);
    const exited = once(child, 'exit');
    await sleep(afterMs);
    if (child.exitCode !== null) throw new Error(`the broker exited with ${child.exitCode}`);
    child.kill('SIGKILL');
    await exited;
  }

  /** Resident memory in bytes (Linux). */
  get residentBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  /** The most resident memory so far, in bytes (Linux). */
  get peakResidentBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  /** CPU seconds used so far (Linux). */
  get cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    const CLOCK_TICKS_PER_SECOND = 100;
    return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
  }

  /** Open file descriptors, sockets included (Linux). */
  get openFileCount(): number {
    return readdirSync(`/proc/${this.#child.pid}/fd`).length;
  }

  /** Bytes that read calls have returned so far, from the page cache and from sockets too (Linux). */
  get readBytes(): number {
    const io = readFileSync(`/proc/${this.#child.pid}/io`, 'utf8');
    return Number(/rchar: (\d+)/.exec(io)?.[1] ?? Number.NaN);
  }

  /** Stands still until `resume`: connections stay open, nobody answers. */
  pause(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }

  /** Whether the process has ended by itself. */
  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** @param request 'collect' collects garbage first; 'forget' begins to measure the loop anew afterwards */
  async vitals(request: 'tell' | 'collect' | 'forget' = 'tell'): Promise<Vitals> {
    const answer = once(this.#child, 'message');
    this.#child.send(request);
    const [vitals] = (await answer) as [Vitals];
    return vitals;
  }

  /** Also of a broker that stands still, by SIGKILL. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (this.ended) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill(signal);
    await exited;
  }

  async stopAndRemove(): Promise<void> {
    await this.stop('SIGKILL');
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}
