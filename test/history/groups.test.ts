/**
 * Invariants 7 to 10 of groups whose members come, go, are cut off from the broker for longer than their session, and
 * return under their instance id, while topics grow, offsets are reset and the broker is restarted: what they did and saw
 * ends in the history checker.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';
import { inForm, Programme } from '../support/programme.js';
import { type Cut, TcpProxy } from '../support/tcp-proxy.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { GROUP, GroupRun, TOPIC_NAMES } from './members/group-run.js';
import { type StartedMember, startMember } from './members/start-member.js';
import { HANDLINGS } from './recorded/consumer.js';

const HISTORIES = inForm({ short: 1, long: 60 });
const SESSION_MS = 1_000;
const REQUEST_TIMEOUT_MS = 500;
const AUTO_COMMIT_MS = 50;
const MAX_HANDLE_MS = 3;
const MAX_REST_MS = 200;
const MAX_CUT_OFF_MS: number = 2 * SESSION_MS;
const MAX_DELAY_MS = 50;
const DELAYED_MS = 300;
/** Seats with lower numbers than this are taken by static members. */
const STATIC_SEATS = 2;

/** In every history, in an order by chance. */
const DISTURBANCES = [
  ...(['cut', 'cut off', 'cut off', 'delay', 'leave', 'leave', 'return', 'return'] as const),
  ...(['partition', 'reset', 'reset', 'reset', 'restart'] as const),
];
type Disturbance = (typeof DISTURBANCES)[number];

/** A place for one member after the other, all with the same way to the broker. */
class Seat {
  readonly #number: number;
  readonly #proxy: TcpProxy;
  #member: StartedMember | undefined;
  #members = 0;

  constructor(number: number, proxy: TcpProxy) {
    this.#number = number;
    this.#proxy = proxy;
  }

  get proxy(): TcpProxy {
    return this.#proxy;
  }

  async sit({ programme, history }: GroupRun): Promise<StartedMember> {
    const number = this.#number;
    const settings = {
      address: this.#proxy.address,
      process: `member-${number}-${this.#members}`,
      group: GROUP,
      topics: TOPIC_NAMES,
      handling: HANDLINGS[(number + this.#members) % HANDLINGS.length] ?? 'auto',
      instanceId: number < STATIC_SEATS ? `instance-${number}` : undefined,
      sessionTimeoutMs: SESSION_MS,
      autoCommitIntervalMs: AUTO_COMMIT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      maxHandleMs: MAX_HANDLE_MS,
      seed: programme.below(2 ** 31),
    };
    this.#members++;
    this.#member = await startMember(settings, history);
    return this.#member;
  }

  async leave(): Promise<void> {
    const member = this.#member;
    this.#member = undefined;
    await member?.leave();
  }
}

class DisturbedGroup {
  readonly #programme: Programme;
  readonly #run: GroupRun;
  readonly #dataDir: string;
  readonly #seats: readonly Seat[];
  readonly #ofProducers: TcpProxy;
  #broker: RunningBroker;

  constructor(programme: Programme, dataDir: string, broker: RunningBroker, proxies: readonly TcpProxy[]) {
    const [ofProducers, ...ofMembers] = proxies;
    this.#programme = programme;
    this.#dataDir = dataDir;
    this.#broker = broker;
    this.#ofProducers = ofProducers!;
    this.#seats = ofMembers.map((proxy, number) => new Seat(number, proxy));
    this.#run = new GroupRun(programme, () => this.#broker.address);
  }

  async check(): Promise<void> {
    await this.#run.createTopics();
    this.#run.send(this.#ofProducers.address);
    this.#run.watch(this.#run.audit());
    await this.#run.guarded(this.#play());
    await this.#run.check();
    this.#programme.tried('events', this.#run.history.events.length);
  }

  async stop(): Promise<void> {
    for (const seat of this.#seats) seat.proxy.refuses = false;
    await Promise.allSettled(this.#seats.map((seat) => seat.leave()));
    await this.#broker.close(0);
  }

  async #play(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => this.#sit(seat)));
    for (const disturbance of this.#shuffled()) {
      await sleep(this.#programme.below(MAX_REST_MS));
      this.#run.history.crash(disturbance);
      await this.#disturb(disturbance);
      this.#programme.tried('disturbances');
    }
    await this.#run.settle();
    await Promise.all(this.#seats.map((seat) => seat.leave()));
  }

  async #sit(seat: Seat): Promise<void> {
    const { ended } = await seat.sit(this.#run);
    this.#run.watch(ended);
  }

  #shuffled(): Disturbance[] {
    const keyed = DISTURBANCES.map((disturbance) => ({ disturbance, key: this.#programme.random() }));
    return keyed.sort((a, b) => a.key - b.key).map(({ disturbance }) => disturbance);
  }

  async #disturb(disturbance: Disturbance): Promise<void> {
    const number = this.#programme.below(this.#seats.length);
    const how: Cut = this.#programme.below(2) === 0 ? 'reset' : 'end';
    switch (disturbance) {
      case 'cut':
        return this.#seats[number]!.proxy.cutAll(how);
      case 'cut off':
        return await this.#cutOff(this.#seats[number]!.proxy, how);
      case 'delay':
        return await this.#delay(this.#seats[number]!.proxy);
      case 'leave':
        return await this.#replace(this.#seats[Math.max(number, STATIC_SEATS)]!);
      case 'return':
        return await this.#replace(this.#seats[number % STATIC_SEATS]!);
      case 'partition':
        return await this.#run.addPartition();
      case 'reset':
        return await this.#run.reset();
      case 'restart':
        return await this.#restart();
    }
  }

  async #cutOff(proxy: TcpProxy, how: Cut): Promise<void> {
    proxy.refuses = true;
    proxy.cutAll(how);
    await sleep(this.#programme.below(MAX_CUT_OFF_MS));
    proxy.refuses = false;
  }

  async #delay(proxy: TcpProxy): Promise<void> {
    proxy.delayMs = 1 + this.#programme.below(MAX_DELAY_MS);
    await sleep(DELAYED_MS);
    proxy.delayMs = 0;
  }

  async #replace(seat: Seat): Promise<void> {
    await seat.leave();
    await this.#sit(seat);
  }

  async #restart(): Promise<void> {
    await this.#broker.close();
    this.#broker = await serve(this.#dataDir);
    for (const { proxy } of this.#seats) proxy.retarget(this.#broker.address);
    this.#ofProducers.retarget(this.#broker.address);
  }
}

const SEATS = 4;

async function serve(dataDir: string): Promise<RunningBroker> {
  return await startBroker({ storage: { dataDir } });
}

async function checkHistory(programme: Programme): Promise<void> {
  const dataDir = temporaryDirectory();
  const broker = await serve(dataDir);
  const proxies = await Promise.all(Array.from({ length: 1 + SEATS }, () => TcpProxy.start(broker.address)));
  const group = new DisturbedGroup(programme, dataDir, broker, proxies);
  try {
    await group.check();
  } finally {
    await group.stop();
    await Promise.all(proxies.map((proxy) => proxy.stop()));
  }
}

test(
  'groups whose members come and go skip nothing, go back nowhere and never share a partition (invariants 7, 8, 9, 10)',
  async (context) => {
    const programme = new Programme(context);
    for (let i = 0; i < HISTORIES; i++) await checkHistory(programme);
  },
  inForm({ short: 120_000, long: 3_600_000 }),
);
