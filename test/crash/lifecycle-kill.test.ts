/**
 * Invariants 1, 2, 4 and 7 under `kill -9` while the broker forgets: compaction, retention, deletion of records and topics.
 *
 * The real command line in a process of its own compacts one topic, trims others by size and on demand, and sees one
 * created and deleted all the time. It is killed at a random moment and started again on the same data. After each start
 * all that is there is read, and compared with what was there; what everybody did and saw ends in the history checker.
 */
import { type FSWatcher, rmSync, watch } from 'node:fs';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../src/index.js';
import { type Server, tidelog, Workplace } from '../cli/support.js';
import { expectNoViolations } from '../history/checker.js';
import { inForm, Programme } from '../support/programme.js';
import { until } from '../support/until.js';
import { events, Life, TABLE_PARTITIONS, table, trimmed } from './lifecycle/life.js';
import { load } from './lifecycle/load.js';
import { RETENTION_BYTES, SEGMENT_BYTES, verify } from './lifecycle/verify.js';

const ROUNDS = inForm({ short: 10, long: 200 });
/** After so many rounds everything begins anew, so that what is remembered stays bounded. */
const ROUNDS_OF_A_LIFE = 20;
/** Acknowledgements in one round before the kill: at least 1, at most about this. */
const MAX_ACKS_BEFORE_KILL = 4000;
const FLAGS = [
  ...['--log-level', 'info'],
  ...['--log-cleaner-backoff-ms', '2'],
  ...['--log-retention-check-interval-ms', '10'],
  ...['--log-file-delete-delay-ms', '20'],
  ...['--log-segment-bytes', String(SEGMENT_BYTES)],
];
/** Names of files whose coming and going tells what a compaction is at. */
const MOMENTS = [/\.cleaned$/, /\.swap$/, /\.deleted$/, /^checkpoint/];

const workplace = new Workplace();

afterAll(() => workplace.clean());

/** The rounds of one data directory. */
class LifecycleRun {
  readonly #programme: Programme;
  readonly #life = new Life();
  readonly #name: string;

  constructor(programme: Programme, name: string) {
    this.#programme = programme;
    this.#name = name;
  }

  async run(rounds: number): Promise<void> {
    const life = this.#life;
    for (life.round = 0; life.round < rounds; life.round++) {
      const server = await workplace.serve(this.#name, ...FLAGS);
      if (life.round === 0) await createTopics(server);
      await this.#verify(server);
      await this.#loadUntilKilled(server);
      this.#programme.tried('kills');
    }
    const server = await workplace.serve(this.#name, ...FLAGS);
    await this.#verify(server);
    const { code, stderr } = await server.stop();
    expect(code).toBe(0);
    this.#examineLog(stderr);
    const verified = await tidelog(['log', 'verify', workplace.path(this.#name)]);
    expect(verified.stdout).toMatch(/^No corruption\.$/m);
    expect(verified.code).toBe(0);
    expectNoViolations(life.history, { compacted: new Set([table.name]) });
    this.#programme.tried('acknowledged records', life.history.acks);
    this.#expectWork(rounds);
    rmSync(workplace.path(this.#name), { recursive: true });
  }

  async #verify(server: Server): Promise<void> {
    await using client = await connect(server.address);
    await verify(this.#life, client, this.#logsDir);
  }

  async #loadUntilKilled(server: Server): Promise<void> {
    const life = this.#life;
    life.killed = false;
    await using client = await connect(server.address);
    const { topicId } = await client.admin.getTopic(table.name);
    const loaded = load(life, client, this.#programme);
    try {
      await Promise.race([loaded, this.#momentToKill(topicId)]);
    } finally {
      life.killed = true;
    }
    life.history.crash(`kill -9, round ${life.round}`);
    const { stderr } = await server.stop('SIGKILL');
    // What is still unanswered fails now instead of being tried again.
    await client.close();
    await loaded;
    this.#examineLog(stderr);
  }

  /** Resolves in the middle of a compaction of the table, or at any moment, as chance has it. */
  async #momentToKill(topicId: string): Promise<void> {
    const target = this.#life.history.acks + 1 + this.#programme.below(MAX_ACKS_BEFORE_KILL);
    const pattern = MOMENTS[this.#programme.below(MOMENTS.length + 1)];
    await this.#acknowledged(target);
    if (pattern === undefined) return;
    const compacting = new Occurrence(pattern, this.#programme.below(6));
    for (let partition = 0; partition < TABLE_PARTITIONS; partition++) {
      compacting.watch(path.join(this.#logsDir, `${topicId}-${partition}`));
    }
    try {
      await Promise.race([compacting.happened, this.#acknowledged(target + MAX_ACKS_BEFORE_KILL)]);
    } finally {
      compacting.stop();
    }
  }

  async #acknowledged(acks: number): Promise<void> {
    const { history } = this.#life;
    await until(() => this.#life.killed || history.acks >= acks, `${acks} records are acknowledged`, 60_000);
  }

  /** Nothing of all this is an error to the broker; and it does do what is to be interrupted. */
  #examineLog(stderr: string): void {
    expect(stderr).not.toMatch(/"level":"(error|fatal)"/);
    expect(stderr).not.toMatch(/failed|cannot|could not/);
    this.#life.compactions += stderr.split('"compacted"').length - 1;
    this.#life.retentions += stderr.split('"retention deleted segments"').length - 1;
  }

  #expectWork(rounds: number): void {
    const { history, compactions, retentions, tombstonesRemoved, churning, eventStart, trimming } = this.#life;
    expect(history.acks).toBeGreaterThan(rounds);
    expect(compactions).toBeGreaterThan(0);
    expect(retentions).toBeGreaterThan(0);
    expect(tombstonesRemoved).toBeGreaterThan(0);
    expect(churning.made).toBeGreaterThan(rounds);
    expect(eventStart).toBeGreaterThan(0);
    expect(trimming.acknowledged).toBeGreaterThan(0);
  }

  get #logsDir(): string {
    return path.join(workplace.path(this.#name), 'logs');
  }
}

/** Waits for the next change, after `skipped` others, of a file whose name matches. */
class Occurrence {
  readonly happened: Promise<void>;
  readonly #pattern: RegExp;
  readonly #watchers: FSWatcher[] = [];
  #skipped: number;
  #happen: () => void = () => undefined;

  constructor(pattern: RegExp, skipped: number) {
    this.#pattern = pattern;
    this.#skipped = skipped;
    this.happened = new Promise((resolve) => {
      this.#happen = resolve;
    });
  }

  watch(directory: string): void {
    const watcher = watch(directory, (_, name) => {
      if (name !== null && this.#pattern.test(name) && this.#skipped-- === 0) this.#happen();
    });
    this.#watchers.push(watcher);
  }

  stop(): void {
    for (const watcher of this.#watchers) watcher.close();
  }
}

async function createTopics(server: Server): Promise<void> {
  await using client = await connect(server.address);
  await client.admin.createTopic({
    name: table.name,
    partitions: TABLE_PARTITIONS,
    configs: { 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': 0.05, 'delete.retention.ms': 20 },
  });
  await client.admin.createTopic({ name: events.name, configs: { 'retention.bytes': RETENTION_BYTES } });
  await client.admin.createTopic({ name: trimmed.name });
}

test(
  `${ROUNDS} kills while logs are compacted, trimmed and deleted lose, change and revive nothing (invariants 1, 2, 4, 7)`,
  async (context) => {
    const programme = new Programme(context);
    for (let left = ROUNDS; left > 0; left -= ROUNDS_OF_A_LIFE) {
      await new LifecycleRun(programme, `data-${left}`).run(Math.min(left, ROUNDS_OF_A_LIFE));
    }
  },
  inForm({ short: 120_000, long: 3_600_000 }),
);
