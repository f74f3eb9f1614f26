/**
 * Invariants 1, 2, 4, 5 and 7 when connections break: clients reach the broker through a proxy that cuts them at random
 * moments and in the middle of a message, refuses new ones for a while, and delays; the broker behind it is killed and
 * replaced. Clients are not told: they connect anew, send again what was not answered, and read on where they were.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
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
  'connections cut, refused and delayed lose, reorder and hide nothing (invariants 1, 2, 4, 5, 7)',
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
