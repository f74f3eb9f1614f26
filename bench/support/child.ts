/** Child processes of scenarios: a script that is told what to do and says what it has seen, over IPC. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { until } from '../../test/support/until.js';

const LIMIT_MS = 60_000;

/** ms of a clock that all processes of this machine share (Linux) and nobody sets. */
export function sharedMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** What a script says. */
export interface Report {
  readonly kind: string;
}

export class Child<Reports extends Report, Orders extends object> {
  readonly #process: ChildProcess;
  readonly #listeners = new Set<(report: Reports) => void>();
  #failure: Error | undefined;

  /**
   * @param script its name in `bench/children`
   * @param task what it begins with, as JSON
   */
  constructor(script: string, task: object) {
    const file = fileURLToPath(new URL(`../children/${script}`, import.meta.url));
    this.#process = fork(file, [JSON.stringify(task)], { execArgv: ['--import', 'tsx'] });
    this.#process.on('message', (report) => {
      for (const listener of this.#listeners) listener(report as Reports);
    });
    this.#process.once('exit', (code, signal) => {
      this.#failure = new Error(`${script} has ended (${code ?? signal})`);
    });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  on(listener: (report: Reports) => void): void {
    this.#listeners.add(listener);
  }

  off(listener: (report: Reports) => void): void {
    this.#listeners.delete(listener);
  }

  /** The next report of this kind; rejects when the process ends before, or after a minute. */
  async next<Kind extends Reports['kind']>(kind: Kind): Promise<Extract<Reports, { kind: Kind }>> {
    let found: Reports | undefined;
    const listener = (report: Reports): void => {
      if (report.kind === kind) found ??= report;
    };
    this.on(listener);
    try {
      await until(() => found !== undefined || this.#failure !== undefined, `a child says ${kind}`, LIMIT_MS);
    } finally {
      this.off(listener);
    }
    if (found === undefined) throw this.#failure;
    return found as Extract<Reports, { kind: Kind }>;
  }

  order(order: Orders): void {
    this.#process.send(order);
  }

  /** Ends it at once. */
  async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exited;
  }
}

/** The child's side. */
export interface Parent<Task, Reports extends Report, Orders extends object> {
  readonly task: Task;
  report(report: Reports): void;
  onOrder(listener: (order: Orders) => void): void;
}

/** What this process was started for, when `Child` has started it. */
export function parent<Task, Reports extends Report, Orders extends object>(): Parent<Task, Reports, Orders> {
  return {
    task: JSON.parse(process.argv[2] ?? '{}') as Task,
    report: (report) => {
      process.send?.(report);
    },
    onOrder: (listener) => {
      process.on('message', (order) => listener(order as Orders));
    },
  };
}
