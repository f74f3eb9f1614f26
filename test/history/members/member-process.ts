/** A member of a group in a process of its own, which can be killed and paused. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { HistoryEvent } from '../events.js';
import type { WorkerOptions } from '../pipeline/worker-options.js';
import { nowUs, type TimedHistory } from '../timed-history.js';
import type { MemberOptions } from './member-options.js';

const MEMBER_MAIN = new URL('member-main.ts', import.meta.url);

interface Pause {
  readonly stoppedUs: number;
  readonly resumedUs: number;
}

/** Its events are added to the history when they are collected: at least once after its end. */
export class MemberProcess {
  readonly process: string;
  readonly #history: TimedHistory;
  readonly #eventsFile: string;
  readonly #child: ChildProcess;
  /** Settled when the process has ended; rejected when it did so by itself. */
  readonly ended: Promise<void>;
  #isToEnd = false;
  #stoppedUs: number | undefined;
  /** Of which the first event afterwards was not collected yet. */
  #pauses: Pause[] = [];
  /** Bytes of the file. */
  #collected = 0;

  /** @param main the script; it takes the options as JSON */
  constructor(options: MemberOptions | WorkerOptions, history: TimedHistory, main: URL = MEMBER_MAIN) {
    this.process = options.process;
    this.#history = history;
    this.#eventsFile = options.eventsFile;
    writeFileSync(options.eventsFile, '');
    this.#child = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(main), JSON.stringify(options)], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    this.ended = this.#end();
  }

  /** Whether it has written anything down: it was handed a record, then. */
  get hasBegun(): boolean {
    return statSync(this.#eventsFile).size > 0;
  }

  async kill(): Promise<void> {
    this.#isToEnd = true;
    this.#child.kill('SIGKILL');
    await this.ended;
    this.#history.crash('kill -9', this.process);
  }

  /** Leaves the group in order. @throws Error if it fails at that */
  async leave(): Promise<void> {
    this.#isToEnd = true;
    this.#child.kill('SIGTERM');
    await this.ended;
    const { exitCode, signalCode } = this.#child;
    // The signal ends it when it has not come to joining yet.
    if (exitCode === 0 || (signalCode === 'SIGTERM' && !this.hasBegun)) return;
    throw new Error(`${this.process} ended with ${exitCode ?? signalCode}`);
  }

  /** Stands still until `resume`. */
  pause(): void {
    this.#child.kill('SIGSTOP');
    this.#stoppedUs = nowUs();
    this.#history.crash(`${this.process} paused`);
  }

  resume(): void {
    if (this.#stoppedUs === undefined) throw new Error(`${this.process} is not paused`);
    this.#pauses.push({ stoppedUs: this.#stoppedUs, resumedUs: nowUs() });
    this.#stoppedUs = undefined;
    this.#child.kill('SIGCONT');
  }

  /** Adds to the history what the member has written down since the last time. */
  collect(): void {
    const bytes = readFileSync(this.#eventsFile).subarray(this.#collected);
    const whole = bytes.subarray(0, bytes.lastIndexOf(0x0a) + 1);
    this.#collected += whole.length;
    for (const line of whole.toString('utf8').split('\n').slice(0, -1)) this.#add(JSON.parse(line));
  }

  async #end(): Promise<void> {
    await once(this.#child, 'exit');
    if (!this.#isToEnd) throw new Error(`${this.process} ended by itself, with ${this.#child.exitCode}`);
  }

  #add({ atUs, event }: { atUs: number; event: HistoryEvent }): void {
    this.#history.add(event, this.#wasUnderWay(event, atUs) ?? atUs);
  }

  /**
   * A record that was being handed out as the process was stopped is written down when it goes on: no member can know.
   * @returns when the process was stopped, if the event is such a one
   */
  #wasUnderWay({ kind }: HistoryEvent, atUs: number): number | undefined {
    const over = this.#pauses.filter(({ resumedUs }) => resumedUs <= atUs);
    if (over.length === 0) return undefined;
    this.#pauses = this.#pauses.filter(({ resumedUs }) => resumedUs > atUs);
    return kind === 'poll' ? over.at(-1)?.stoppedUs : undefined;
  }
}
