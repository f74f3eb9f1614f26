/** Load at a given pace, and a watch on how long a broker takes to answer. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'tidelog';

export interface PacedResult {
  /** Of each call, from when it was due, in ms. */
  readonly latenciesMs: readonly number[];
  /** From the first call's due time to the last one's end. */
  readonly seconds: number;
}

/**
 * Calls `work` every `intervalMs`, whether or not the calls before have ended. What a late start costs counts as latency:
 * else a stall would hide the calls that it kept from being made.
 */
export async function paced(count: number, intervalMs: number, work: () => Promise<unknown>): Promise<PacedResult> {
  const latenciesMs: number[] = [];
  const calls: Promise<void>[] = [];
  let failure: unknown;
  const start = performance.now();
  for (let i = 0; i < count && failure === undefined; i++) {
    const dueAt = start + i * intervalMs;
    const earlyMs = dueAt - performance.now();
    if (earlyMs > 0) await sleep(earlyMs);
    const settled = work().then(
      () => {
        latenciesMs.push(performance.now() - dueAt);
      },
      (error) => {
        failure ??= error;
      },
    );
    calls.push(settled);
  }
  await Promise.all(calls);
  if (failure !== undefined) throw failure;
  return { latenciesMs, seconds: (performance.now() - start) / 1000 };
}

const PROBE_PAUSE_MS = 2;

/**
 * Sends a cheap call as soon as the one before was answered, until it is stopped: a broker whose event loop stalls answers
 * none of them meanwhile, so that the longest answer time is about the longest stall.
 */
export class Probe {
  readonly #client: Client;
  readonly #answerMs: number[] = [];
  readonly #running: Promise<void>;
  #stopped = false;

  constructor(client: Client) {
    this.#client = client;
    this.#running = this.#run();
    // Reported by `stop`.
    this.#running.catch(() => {});
  }

  /** Answer times in ms. */
  async stop(): Promise<readonly number[]> {
    this.#stopped = true;
    await this.#running;
    return this.#answerMs;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const start = performance.now();
      await this.#client.admin.describeCluster();
      this.#answerMs.push(performance.now() - start);
      await sleep(PROBE_PAUSE_MS);
    }
  }
}

/** Answer times in ms while nothing else is asked of the broker. */
export async function probeFor(client: Client, durationMs: number): Promise<readonly number[]> {
  const probe = new Probe(client);
  await sleep(durationMs);
  return probe.stop();
}
