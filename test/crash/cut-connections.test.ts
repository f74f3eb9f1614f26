/**
 * Invariants 1, 2, 4, 5, 6 and 7 when connections break: clients reach the broker through a proxy that cuts them at random
 * moments and in the middle of a message, refuses new ones for a while, and delays; the broker behind it is killed and
 * replaced. Clients are not told: they connect anew, send again what was not answered, and read on where they were.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { startBroker } from '../../src/broker.js';
import { type Client, connect, type Producer, type ProducerOptions, string, topic } from '../../src/index.js';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { type Cut, TcpProxy } from '../support/tcp-proxy.js';
import { until } from '../support/until.js';
import { checkUnderLoad } from './lasting-load.js';

const HISTORIES = inForm({ short: 1, long: 40 });
/** Of each kind, in one history. */
const ROUNDS = 3;
const MAX_REST_MS = 200;
const MAX_REFUSAL_MS = 200;
const MAX_DELAY_MS = 20;
const DELAYED_MS = 100;
/** What may pass before connections are cut, in bytes. */
const MAX_BYTES_BEFORE_CUT = 50_000;

type Disturbance = 'cut' | 'cut in the middle' | 'refusal' | 'delay' | 'kill';

/** One broker after the other behind one proxy. */
class CutRun {
  readonly #programme: Programme;
  readonly #proxy: TcpProxy;
  #broker: BrokerProcess;

  constructor(programme: Programme, proxy: TcpProxy, broker: BrokerProcess) {
    this.#programme = programme;
    this.#proxy = proxy;
    this.#broker = broker;
  }

  async check(): Promise<void> {
    const broker = { address: this.#proxy.address, calmAddress: () => this.#broker.address };
    const acks = await checkUnderLoad(broker, async (history) => {
      for (const disturbance of this.#shuffledDisturbances()) {
        await sleep(this.#programme.below(MAX_REST_MS));
        history.crash(disturbance);
        await this.#disturb(disturbance);
      }
    });
    expect(this.#proxy.cutCount).toBeGreaterThan(0);
    this.#programme.tried('cut connections', this.#proxy.cutCount);
    this.#programme.tried('acknowledged records', acks);
  }

  async stop(): Promise<void> {
    await this.#proxy.stop();
    await this.#broker.stopAndRemove();
  }

  /** A kill takes a start, so there is only one. */
  #shuffledDisturbances(): Disturbance[] {
    const kinds: Disturbance[] = ['cut', 'cut in the middle', 'cut in the middle', 'refusal', 'delay'];
    const all: Disturbance[] = ['kill', ...Array.from({ length: ROUNDS }, () => kinds).flat()];
    const keyed = all.map((disturbance) => ({ disturbance, key: this.#programme.random() }));
    return keyed.sort((a, b) => a.key - b.key).map(({ disturbance }) => disturbance);
  }

  async #disturb(disturbance: Disturbance): Promise<void> {
    const proxy = this.#proxy;
    const how: Cut = this.#programme.below(2) === 0 ? 'reset' : 'end';
    if (disturbance === 'cut') proxy.cutAll(how);
    else if (disturbance === 'cut in the middle') await this.#cutInTheMiddle(how);
    else if (disturbance === 'refusal') await this.#refuse(how);
    else if (disturbance === 'delay') await this.#delay();
    else await this.#replaceBroker();
  }

  async #cutInTheMiddle(how: Cut): Promise<void> {
    const { cutCount } = this.#proxy;
    this.#proxy.cutAfter(1 + this.#programme.below(MAX_BYTES_BEFORE_CUT), how);
    await until(() => this.#proxy.cutCount > cutCount, 'connections are cut');
  }

  async #refuse(how: Cut): Promise<void> {
    this.#proxy.refuses = true;
    this.#proxy.cutAll(how);
    await sleep(this.#programme.below(MAX_REFUSAL_MS));
    this.#proxy.refuses = false;
  }

  async #delay(): Promise<void> {
    this.#proxy.delayMs = this.#programme.below(MAX_DELAY_MS);
    await sleep(DELAYED_MS);
    this.#proxy.delayMs = 0;
  }

  async #replaceBroker(): Promise<void> {
    await this.#broker.stop('SIGKILL');
    this.#broker = await BrokerProcess.start(this.#broker.dataDir);
    this.#proxy.retarget(this.#broker.address);
    this.#programme.tried('kills');
  }
}

test(
  'connections cut, refused and delayed lose, repeat, reorder and hide nothing (invariants 1, 2, 4, 5, 6, 7)',
  async (context) => {
    const programme = new Programme(context);
    for (let i = 0; i < HISTORIES; i++) {
      const broker = await BrokerProcess.start();
      const run = new CutRun(programme, await TcpProxy.start(broker.address), broker);
      try {
        await run.check();
      } finally {
        await run.stop();
      }
    }
  },
  inForm({ short: 60_000, long: 1_800_000 }),
);

const CUT_EVERY_MS = 50;
const CUTTING_MS = inForm({ short: 3_000, long: 300_000 });
const PARTITIONS = [0, 1, 2];
/** Records of one producer in one partition that are under way at once. */
const WINDOW = 200;
const numbers = topic('numbers', { value: string() });

/** Sends numbers to one partition until it is told to stop. @returns how many; every one was acknowledged, in its order */
async function count(producer: Producer, name: string, partition: number, goesOn: () => boolean): Promise<number> {
  let next = 0;
  let lastOffset = -1;
  const lane = async (): Promise<void> => {
    while (goesOn()) {
      const { offset } = await producer.send(numbers, { value: `${name} ${next++}`, partition });
      expect(offset).toBeGreaterThan(lastOffset);
      lastOffset = offset;
    }
  };
  await Promise.all(Array.from({ length: WINDOW }, lane));
  return next;
}

/** The numbers of each producer in one partition, in the order of the log. */
async function counted(client: Client, partition: number): Promise<Map<string, number[]>> {
  const byName = new Map<string, number[]>();
  for await (const { value } of client.read(numbers, { partitions: [partition], to: 'end' })) {
    const [name = '', number] = value.split(' ');
    const seen = byName.get(name) ?? [];
    byName.set(name, seen);
    seen.push(Number(number));
  }
  return byName;
}

test(
  `with connections cut every ${CUT_EVERY_MS} ms every record is there once and in order (invariants 1, 5, 6)`,
  async (context) => {
    const programme = new Programme(context);
    await using broker = await startBroker({ storage: 'memory' });
    await using calm = await connect(broker.address);
    await calm.admin.createTopic({ name: numbers.name, partitions: PARTITIONS.length });
    const proxy = await TcpProxy.start(broker.address);
    const client = await connect(proxy.address);
    const options: ProducerOptions = { lingerMs: 1, batchBytes: 1_000, retryBackoffMs: 1, retryBackoffMaxMs: 5 };
    const producers = new Map<string, Producer>([
      ['plain', client.producer(options)],
      ['gzip', client.producer({ ...options, compression: 'gzip', acks: 'written' })],
    ]);
    const endsAt = performance.now() + CUTTING_MS;
    const goesOn = (): boolean => performance.now() < endsAt;
    const cutting = setInterval(() => proxy.cutAll(programme.below(2) === 0 ? 'reset' : 'end'), CUT_EVERY_MS);
    const counts = [...producers].flatMap(([name, producer]) =>
      PARTITIONS.map(async (partition) => ({ name, partition, sent: await count(producer, name, partition, goesOn) })),
    );
    const results = await Promise.all(counts);
    clearInterval(cutting);
    // Readers see what is durable; with this it is all that was sent before.
    await using last = calm.producer({ lingerMs: 0 });
    await Promise.all(PARTITIONS.map((partition) => last.send(numbers, { value: 'last 0', partition })));
    const logs = await Promise.all(PARTITIONS.map((partition) => counted(calm, partition)));
    for (const { name, partition, sent } of results) {
      expect(logs[partition]?.get(name)).toEqual(Array.from({ length: sent }, (_, number) => number));
      programme.tried('records', sent);
    }
    programme.tried('cut connections', proxy.cutCount);
    expect(proxy.cutCount).toBeGreaterThan(CUTTING_MS / CUT_EVERY_MS / 4);
    await client.close();
    await proxy.stop();
  },
  CUTTING_MS + 60_000,
);
