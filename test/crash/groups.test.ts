/**
 * Invariants 7 to 10 of groups whose members are killed with -9, or stand still for longer than their session, while the
 * broker is killed and replaced under them: members in processes of their own, whose events outlive them.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'vitest';
import { GROUP, GroupRun, TOPIC_NAMES } from '../history/members/group-run.js';
import { MemberProcess } from '../history/members/member-process.js';
import { HANDLINGS, type Handling } from '../history/recorded/consumer.js';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { temporaryDirectory } from '../support/temporary-directory.js';
import { until } from '../support/until.js';

const HISTORIES = inForm({ short: 1, long: 60 });
const SESSION_MS = 1_000;
const REQUEST_TIMEOUT_MS = 500;
const AUTO_COMMIT_MS = 50;
const MAX_HANDLE_MS = 3;
const MAX_REST_MS = 300;
/** Some pauses are within the session, most are longer. */
const MIN_PAUSE_MS = 800;
const MAX_PAUSE_MS: number = 2 * SESSION_MS;

type Disturbance = 'kill' | 'pause' | 'broker';

interface Plan {
  /** At once. */
  readonly members: number;
  /** Of members, in turn. */
  readonly handlings: readonly Handling[];
  /** In an order by chance. */
  readonly disturbances: readonly Disturbance[];
}

const DISTURBANCES: readonly Disturbance[] = inForm<Disturbance[]>({
  short: ['kill', 'kill', 'pause', 'broker'],
  long: ['kill', 'kill', 'kill', 'pause', 'pause', 'pause', 'broker', 'broker'],
});

class KilledGroup {
  readonly #programme: Programme;
  readonly #plan: Plan;
  readonly #run: GroupRun;
  readonly #proxy: TcpProxy;
  readonly #directory = temporaryDirectory();
  readonly #started: MemberProcess[] = [];
  /** Of those that were started: the ones that are running. */
  #members: MemberProcess[] = [];
  #broker: BrokerProcess;

  constructor(programme: Programme, plan: Plan, broker: BrokerProcess, proxy: TcpProxy) {
    this.#programme = programme;
    this.#plan = plan;
    this.#broker = broker;
    this.#proxy = proxy;
    this.#run = new GroupRun(programme, () => this.#broker.address);
  }

  async check(): Promise<void> {
    await this.#run.createTopics();
    for (let i = 0; i < this.#plan.members; i++) this.#start();
    this.#run.send(this.#proxy.address);
    this.#run.watch(this.#run.audit());
    await this.#run.guarded(this.#play());
    await this.#run.check();
    this.#programme.tried('events', this.#run.history.events.length);
  }

  async stop(): Promise<void> {
    for (const member of this.#started) await member.kill();
    await this.#proxy.stop();
    await this.#broker.stopAndRemove();
  }

  async #play(): Promise<void> {
    await until(() => this.#members.every(({ hasBegun }) => hasBegun), 'all members are at work');
    for (const disturbance of this.#shuffled()) {
      await sleep(this.#programme.below(MAX_REST_MS));
      await this.#disturb(disturbance);
    }
    await this.#run.settle();
    await this.#leave();
  }

  #shuffled(): Disturbance[] {
    const keyed = this.#plan.disturbances.map((disturbance) => ({ disturbance, key: this.#programme.random() }));
    return keyed.sort((a, b) => a.key - b.key).map(({ disturbance }) => disturbance);
  }

  async #disturb(disturbance: Disturbance): Promise<void> {
    if (disturbance === 'broker') await this.#replaceBroker();
    else if (disturbance === 'kill') await this.#kill(this.#anyAtWork());
    else await this.#pause(this.#anyAtWork());
  }

  #anyAtWork(): MemberProcess {
    const atWork = this.#members.filter(({ hasBegun }) => hasBegun);
    return atWork[this.#programme.below(atWork.length)]!;
  }

  async #kill(member: MemberProcess): Promise<void> {
    await member.kill();
    member.collect();
    this.#members = this.#members.filter((other) => other !== member);
    this.#start();
    this.#programme.tried('kills of members');
  }

  async #pause(member: MemberProcess): Promise<void> {
    member.pause();
    await sleep(MIN_PAUSE_MS + this.#programme.below(MAX_PAUSE_MS - MIN_PAUSE_MS));
    member.resume();
    this.#programme.tried('pauses of members');
  }

  async #replaceBroker(): Promise<void> {
    this.#run.history.crash('the broker is killed');
    await this.#broker.stop('SIGKILL');
    this.#broker = await BrokerProcess.start(this.#broker.dataDir);
    this.#proxy.retarget(this.#broker.address);
    this.#programme.tried('kills of the broker');
  }

  #start(): void {
    const number = this.#started.length;
    const { handlings } = this.#plan;
    const process = `member-${number}`;
    const member = new MemberProcess(
      {
        address: this.#proxy.address,
        process,
        group: GROUP,
        topics: TOPIC_NAMES,
        handling: handlings[number % handlings.length] ?? 'auto',
        sessionTimeoutMs: SESSION_MS,
        autoCommitIntervalMs: AUTO_COMMIT_MS,
        requestTimeoutMs: REQUEST_TIMEOUT_MS,
        maxHandleMs: MAX_HANDLE_MS,
        seed: this.#programme.below(2 ** 31),
        eventsFile: join(this.#directory, process),
      },
      this.#run.history,
    );
    this.#run.watch(member.ended);
    this.#started.push(member);
    this.#members.push(member);
  }

  async #leave(): Promise<void> {
    const members = this.#members;
    this.#members = [];
    await Promise.all(members.map((member) => member.leave()));
    for (const member of members) member.collect();
  }
}

async function checkPlan(programme: Programme, plan: Plan): Promise<void> {
  const broker = await BrokerProcess.start();
  const group = new KilledGroup(programme, plan, broker, await TcpProxy.start(broker.address));
  try {
    await group.check();
  } finally {
    await group.stop();
  }
}

test(
  'kills and pauses of members skip nothing, go back nowhere and never share a partition (invariants 7, 8, 9, 10)',
  async (context) => {
    const programme = new Programme(context);
    const plan: Plan = { members: 4, handlings: HANDLINGS, disturbances: DISTURBANCES };
    for (let i = 0; i < HISTORIES; i++) await checkPlan(programme, plan);
  },
  inForm({ short: 120_000, long: 3_600_000 }),
);

test(
  'members that handle records in parallel and commit them out of order are killed, and nothing is skipped (invariants 7, 8)',
  async (context) => {
    const programme = new Programme(context);
    const plan: Plan = { members: 2, handlings: ['unordered', 'keys'], disturbances: ['kill', 'kill'] };
    for (let i = 0; i < HISTORIES; i++) await checkPlan(programme, plan);
  },
  inForm({ short: 120_000, long: 3_600_000 }),
);
