/**
 * Invariants 1 to 5 and 20 on disks that really fail: memory that runs full, an ext4 that loses its power, an `fdatasync`
 * that fails, and one whose data is gone afterwards. Needs root, and tools of the system that are named where they are
 * missing. The broker is the real command line; what its clients did and saw ends in the history checker.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, type TestContext, test } from 'vitest';
import { type Client, connect, LogError, type Producer, string, topic } from '../../src/index.js';
import { Server } from '../cli/support.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { sendMany, sendSingly } from '../history/recorded/loads.js';
import { RecordedProducer } from '../history/recorded/producer.js';
import { readAll, TailReader } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';
import { health } from '../support/health.js';
import { cutPower, Mounts, needs, unlessRefused } from '../support/mounts.js';
import { inForm, Programme } from '../support/programme.js';
import { rejection } from '../support/rejection.js';
import { until } from '../support/until.js';

const MIB = 1024 * 1024;
/** The disks here are smaller than what a broker keeps free. */
const FLAGS = ['--log-disk-reserve-bytes', '0', '--log-level', 'error'];
const TIMEOUT_MS = inForm({ short: 60_000, long: 1_800_000 });
const POWER_CUT_DISKS = inForm({ short: 1, long: 5 });
/** Of one disk. */
const POWER_CUTS = inForm({ short: 3, long: 20 });
/** Of values that fill a disk, and of others. */
const LARGE_BYTES = 50_000;
const SMALL_BYTES = 100;
const ALL_PARTITIONS = [0, 1];
const always = (): boolean => true;

const orders = topic('orders', { value: string() });

/** Of one test: a broker whose data lies on a disk of its own, and the history of its clients. */
class Workshop {
  readonly mounts: Mounts = new Mounts();
  readonly history: History = new History();
  readonly recorded: RecordedTopic = { history: this.history, topic: orders, partitionCount: ALL_PARTITIONS.length };

  constructor() {
    onTestFinished(() => this.mounts.clean());
  }

  async serve(dataDir: string): Promise<Server> {
    return this.#owned(await Server.start(dataDir, ...FLAGS));
  }

  /** Under strace, of whose arguments those that are about the fault are given. One thread, because it counts by thread. */
  async serveTraced(dataDir: string, fault: readonly string[]): Promise<Server> {
    // -D: the broker stays our child, so that signals reach it.
    const strace = ['strace', '-D', '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', ...fault];
    return this.#owned(await Server.under(strace, { UV_THREADPOOL_SIZE: '1' }, dataDir, ...FLAGS));
  }

  async createTopic(server: Server, segmentBytes: number = MIB): Promise<string> {
    await using client = await connect(server.address);
    const configs = { 'segment.bytes': segmentBytes };
    return (await client.admin.createTopic({ name: orders.name, partitions: ALL_PARTITIONS.length, configs })).topicId;
  }

  async connect({ address }: Server): Promise<Client> {
    const client = await connect(address);
    onTestFinished(() => client.close());
    return client;
  }

  /** Reads everything and checks the history. */
  async check(server: Server): Promise<void> {
    await using client = await connect(server.address);
    await readAll(this.recorded, client, 'last');
    expectNoViolations(this.history);
  }

  #owned(server: Server): Server {
    onTestFinished(async () => void (await server.stop('SIGKILL')));
    return server;
  }
}

/** Records one send. @throws LogError */
async function sendOne({ recorded }: Workshop, producer: Producer, name: string, partition: number): Promise<void> {
  await new RecordedProducer(recorded, producer, name).send({ name, record: { value: name, partition } });
}

/** Sends to a partition until it is stopped. */
function sendWhile(
  { recorded, history }: Workshop,
  client: Client,
  process: string,
  partition: number,
): { stop(): Promise<number> } {
  const before = history.acks;
  let going = true;
  const producer = client.producer({ lingerMs: 1 });
  const load = sendSingly(recorded, producer, process, { partitions: [partition], window: 4, goesOn: () => going });
  return {
    stop: async () => {
      going = false;
      await load;
      return history.acks - before;
    },
  };
}

interface Refusal {
  readonly process: string;
  readonly partition: number;
  readonly valueBytes: number;
  readonly isIt: (error: LogError) => boolean;
}

/** Sends to a partition until a send fails as expected. On a busy machine others may run out of time before. */
async function sendUntilRefused({ recorded }: Workshop, client: Client, refusal: Refusal): Promise<void> {
  const { process, partition, valueBytes, isIt } = refusal;
  let isRefused = false;
  await using producer = client.producer({ lingerMs: 1, deliveryTimeoutMs: 500, closeTimeoutMs: 0 });
  await sendSingly(recorded, producer, process, {
    partitions: [partition],
    window: 4,
    valueBytes,
    goesOn: () => !isRefused,
    onFailure: (error) => {
      isRefused ||= error instanceof LogError && isIt(error);
    },
  });
}

/** The broker refuses for want of room, and the client that had tried again and again knows that nothing was written. */
function isFull({ reason, outcome, cause }: LogError): boolean {
  return (
    reason === 'REQUEST_TIMED_OUT' && outcome === 'none' && cause instanceof LogError && cause.reason === 'STORAGE_FULL'
  );
}

function isStorageError({ reason, outcome }: LogError): boolean {
  return reason === 'STORAGE_ERROR' && outcome === 'unknown';
}

test(
  'a full disk refuses appends, lets readers read, and takes appends again once there is room (invariants 1, 4, 5, 20)',
  async (context) => {
    const programme = new Programme(context);
    needs(context, { root: true });
    const workshop = new Workshop();
    const disk = unlessRefused(context, () => workshop.mounts.tmpfs('disk', 8 * MIB));
    const dataDir = path.join(disk, 'data');
    const server = await workshop.serve(dataDir);
    await workshop.createTopic(server);
    const client = await workshop.connect(server);
    const ballast = path.join(disk, 'ballast');
    for (const ballastMib of [6, 4, 2]) {
      writeFileSync(ballast, Buffer.alloc(ballastMib * MIB));
      for (const partition of ALL_PARTITIONS) {
        const process = `fill-${ballastMib}-${partition}`;
        await sendUntilRefused(workshop, client, { process, partition, valueBytes: LARGE_BYTES, isIt: isFull });
      }
      await readAll(workshop.recorded, client, `full-${ballastMib}`);
      rmSync(ballast);
      await sendToAll(workshop, client, `healed-${ballastMib}`);
      programme.tried('full disks');
    }
    expect((await health(server.http)).failures).toEqual([]);
    await client.close();
    expect((await server.stop()).code).toBe(0);
    await workshop.check(await workshop.serve(dataDir));
  },
  TIMEOUT_MS,
);

async function sendToAll(workshop: Workshop, client: Client, name: string): Promise<void> {
  await using producer = client.producer();
  for (const partition of ALL_PARTITIONS) await sendOne(workshop, producer, `${name}-${partition}`, partition);
}

test(
  'what was acknowledged durable or read survives the loss of power of an ext4 (invariants 2, 4, 7)',
  async (context) => {
    const programme = new Programme(context);
    needs(context, { root: true, tools: ['mkfs.ext4', 'python3'] });
    for (let i = 0; i < POWER_CUT_DISKS; i++) await cutPowerOften(context, programme);
  },
  TIMEOUT_MS,
);

async function cutPowerOften(context: TestContext, programme: Programme): Promise<void> {
  const workshop = new Workshop();
  const { mounts, recorded, history } = workshop;
  const image = mounts.path('image');
  mounts.makeExt4(image, 64 * MIB);
  let disk = unlessRefused(context, () => mounts.loop('disk', image));
  const tail = new TailReader(recorded, 'tail');
  for (let round = 0; round < POWER_CUTS; round++) {
    const server = await workshop.serve(path.join(disk, 'data'));
    if (round === 0) await workshop.createTopic(server, 65_536);
    const client = await workshop.connect(server);
    const load = Promise.all([sendOfAllKinds(workshop, client, `round-${round}`), tail.follow(client)]);
    const target = history.acks + 1 + programme.below(1_000);
    await Promise.race([load, until(() => history.acks >= target, `${target} records are acknowledged`, 60_000)]);
    history.crash(`power cut ${round}`);
    unlessRefused(context, () => cutPower(disk));
    // For a while the broker writes to a disk that takes nothing any more.
    await sleep(programme.below(50));
    await server.stop('SIGKILL');
    await client.close();
    await load;
    mounts.unmount(disk);
    disk = mounts.loop('disk', image);
    programme.tried('power cuts');
  }
  const server = await workshop.serve(path.join(disk, 'data'));
  const client = await workshop.connect(server);
  const following = tail.follow(client);
  await Promise.race([following, tail.catchUp(client)]);
  await client.close();
  await following;
  await workshop.check(server);
  programme.tried('acknowledged records', history.acks);
}

/** What is acknowledged as written, the cut may take: it is there so that there is something to lose. */
async function sendOfAllKinds({ recorded }: Workshop, client: Client, name: string): Promise<void> {
  const options = { lingerMs: 1, closeTimeoutMs: 0 };
  const durable = client.producer({ ...options, acks: 'durable' });
  const many = client.producer({ ...options, acks: 'durable' });
  const written = client.producer({ ...options, acks: 'written' });
  const load = { partitions: ALL_PARTITIONS, window: 16, valueBytes: 200, goesOn: always };
  await Promise.all([
    sendSingly(recorded, durable, `${name}-durable`, load),
    sendMany(recorded, many, `${name}-many`, { partition: 0, count: 20, goesOn: always }),
    sendSingly(recorded, written, `${name}-written`, { ...load, ackCounts: false }),
  ]);
}

/** The partition answers STORAGE_ERROR from here on, whatever a second sync would say, and health names it. */
async function expectPoisoned(workshop: Workshop, server: Server, client: Client, partition: number): Promise<void> {
  await using producer = client.producer({ lingerMs: 0 });
  for (let i = 0; i < 10; i++) {
    await rejection(sendOne(workshop, producer, `poisoned-${partition}-${i}`, partition), 'STORAGE_ERROR');
  }
  const failure = { topic: orders.name, partition, reason: 'STORAGE_ERROR' };
  expect(await health(server.http)).toMatchObject({
    status: 'SERVING',
    failures: expect.arrayContaining([expect.objectContaining(failure)]),
  });
}

test(
  'after an fdatasync that failed a partition acknowledges nothing, others go on, a restart recovers (invariants 1, 2, 3, 5)',
  async (context) => {
    const programme = new Programme(context);
    needs(context, { tools: ['strace'] });
    unlessRefused(context, () =>
      execFileSync('strace', ['-o', '/dev/null', '-f', '--seccomp-bpf', 'true'], { stdio: 'pipe' }),
    );
    const workshop = new Workshop();
    const dataDir = workshop.mounts.path('data');
    const first = await workshop.serve(dataDir);
    const topicId = await workshop.createTopic(first);
    const early = await workshop.connect(first);
    await sendToAll(workshop, early, 'early');
    await early.close();
    await first.stop();
    const directory = path.join(dataDir, 'logs', `${topicId}-0`);
    const segment = path.join(directory, readdirSync(directory).find((name) => name.endsWith('.log')) ?? '');
    // Once: whoever tries again would succeed.
    const when = 2 + programme.below(20);
    const fault = ['-e', 'trace=fdatasync', '-e', `inject=fdatasync:error=EIO:when=${when}`, '-P', segment];
    const traced = await workshop.serveTraced(dataDir, fault);
    const client = await workshop.connect(traced);
    const other = sendWhile(workshop, client, 'other', 1);
    const failing = { process: 'failing', partition: 0, valueBytes: SMALL_BYTES, isIt: isStorageError };
    await sendUntilRefused(workshop, client, failing);
    programme.tried('failed syncs');
    await expectPoisoned(workshop, traced, client, 0);
    expect((await health(traced.http)).failures).toHaveLength(1);
    await readAll(workshop.recorded, client, 'poisoned');
    expect(await other.stop()).toBeGreaterThan(0);
    await client.close();
    await traced.stop();
    const again = await workshop.serve(dataDir);
    expect((await health(again.http)).failures).toEqual([]);
    const late = await workshop.connect(again);
    await sendToAll(workshop, late, 'late');
    await workshop.check(again);
  },
  TIMEOUT_MS,
);

test(
  'a restart recovers what was durable from a disk that has dropped what it could not sync (invariants 1, 2, 3, 5)',
  async (context) => {
    const programme = new Programme(context);
    needs(context, { root: true, tools: ['mkfs.ext4', 'findmnt'] });
    const workshop = new Workshop();
    const { mounts } = workshop;
    const { mountPoint, memory, image } = unlessRefused(context, () =>
      mounts.overcommitted('disk', 16 * MIB, 64 * MIB),
    );
    const server = await workshop.serve(path.join(mountPoint, 'data'));
    await workshop.createTopic(server);
    const client = await workshop.connect(server);
    const failing = { process: 'failing', partition: 0, valueBytes: LARGE_BYTES, isIt: isStorageError };
    await sendUntilRefused(workshop, client, failing);
    programme.tried('failed syncs');
    await expectPoisoned(workshop, server, client, 0);
    await client.close();
    await server.stop('SIGKILL');
    mounts.unmount(mountPoint);
    mounts.resize(memory, 100 * MIB);
    const again = await workshop.serve(path.join(mounts.loop('disk', image), 'data'));
    const late = await workshop.connect(again);
    await sendToAll(workshop, late, 'late');
    await workshop.check(again);
    programme.tried('acknowledged records', workshop.history.acks);
  },
  TIMEOUT_MS,
);
