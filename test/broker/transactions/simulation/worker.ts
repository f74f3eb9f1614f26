/**
 * A process that reads an input, sends each record of it on, and commits how far it is, all in one transaction at a time. It
 * crashes, stands still for minutes, and goes on as if nothing had been.
 */
import type { ProducerIdentity } from '../../../../src/broker/transactions/coordinator-types.js';
import type { ModelBroker } from './broker.js';
import {
  type Answer,
  GROUPS,
  LONGEST_TIMEOUT_MS,
  PARTITION_COUNT,
  type Request,
  type Work,
  type World,
} from './world.js';

const REQUEST_TIMEOUT_MS = 2_000;
const RETRY_MS = 100;
/** After this, whoever repeats a request in vain aborts, or begins anew. */
const PATIENCE_MS = 90_000;

const TEMPORARY: ReadonlySet<string> = new Set([
  'NOTHING_ASSIGNED',
  'BROKER_UNAVAILABLE',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'CONCURRENT_TRANSACTIONS',
  'UNSTABLE_OFFSET_COMMIT',
  'STORAGE_FULL',
  // A batch before it is still on its way.
  'OUT_OF_ORDER_SEQUENCE_NUMBER',
]);

interface Batch {
  readonly partition: number;
  readonly sequence: number;
  readonly offsets: readonly number[];
}

export class Worker {
  readonly name: string;
  readonly transactionalId: string;
  readonly #world: World;
  readonly #broker: ModelBroker;
  readonly #timeoutMs: number;
  #identity: ProducerIdentity | undefined;
  /** Counts starts, and transactions: what an earlier one has begun does not go on. */
  #life = 0;
  #pausedUntilMs = 0;
  isAlive = false;

  constructor(world: World, broker: ModelBroker, name: string, transactionalId: string) {
    this.#world = world;
    this.#broker = broker;
    this.name = name;
    this.transactionalId = transactionalId;
    this.#timeoutMs = world.chance.pick([2_000, 5_000, LONGEST_TIMEOUT_MS])!;
  }

  start(): void {
    this.isAlive = true;
    this.#pausedUntilMs = 0;
    this.#identity = undefined;
    this.#say('starts');
    this.#begin();
  }

  crash(): void {
    this.isAlive = false;
    this.#life++;
    this.#say('crashes');
  }

  /** It stands still: what comes meanwhile it sees when it goes on. */
  pause(ms: number): void {
    this.#pausedUntilMs = this.#world.timeline.nowMs + ms;
    this.#say(`stands still for ${ms} ms`);
  }

  wake(): void {
    this.#pausedUntilMs = 0;
  }

  #say(what: string): void {
    const { timeline, trace } = this.#world;
    trace?.(`${timeline.nowMs} ${this.name} (${this.#identity?.producerId}/${this.#identity?.producerEpoch}) ${what}`);
  }

  /** In this life, and not while it stands still. */
  #later(delayMs: number, run: () => void): void {
    const life = this.#life;
    this.#world.timeline.after(delayMs, () => this.#go(life, run));
  }

  #go(life: number, run: () => void): void {
    const { timeline } = this.#world;
    if (life !== this.#life) return;
    if (timeline.nowMs >= this.#pausedUntilMs) run();
    else timeline.after(Math.max(1, Math.min(this.#pausedUntilMs - timeline.nowMs, 1_000)), () => this.#go(life, run));
  }

  /** Repeats a request until it is answered with something that will not pass; the first answer counts. */
  #ask(request: Request, told: (answer: Answer) => void): void {
    const { network, timeline } = this.#world;
    const life = this.#life;
    const sinceMs = timeline.nowMs;
    let isTold = false;
    let attempts = 0;
    const attempt = (): void => {
      const number = ++attempts;
      const repeat = (delayMs: number): void =>
        this.#later(delayMs, () => {
          if (!isTold && number === attempts) attempt();
        });
      const arrive = (answer: Answer): void => {
        if (isTold) return;
        const isOld = timeline.nowMs - sinceMs > PATIENCE_MS;
        if (answer.kind === 'refused' && TEMPORARY.has(answer.reason) && !isOld) {
          if (number === attempts) repeat(RETRY_MS);
          return;
        }
        isTold = true;
        told(answer);
      };
      network.send(() =>
        this.#broker.handle(request, (answer) => network.send(() => this.#go(life, () => arrive(answer)))),
      );
      repeat(REQUEST_TIMEOUT_MS);
    };
    attempt();
  }

  /** The next transaction, or first an identity. */
  #begin(): void {
    this.#life++;
    const identity = this.#identity;
    if (identity === undefined) {
      this.#initialise(undefined);
      return;
    }
    const { transactionalId } = this;
    const { chance, weather } = this.#world;
    this.#later(weather.isStormy ? chance.between(0, 10) : chance.between(10_000, 20_000), () =>
      this.#ask({ kind: 'fetch-offset', transactionalId }, (answer) => {
        if (answer.kind === 'offset') this.#transact(identity, answer);
        else this.#later(RETRY_MS, () => this.#begin());
      }),
    );
  }

  #initialise(current: ProducerIdentity | undefined): void {
    const { transactionalId } = this;
    this.#life++;
    this.#ask({ kind: 'init', transactionalId, timeoutMs: this.#timeoutMs, current }, (answer) => {
      if (answer.kind !== 'identity') {
        this.#startOver(answer);
        return;
      }
      this.#identity = answer.identity;
      this.#say('is initialised');
      this.#begin();
    });
  }

  /** Fenced, most likely: the process ends, and is started again some time later. */
  #startOver(answer: Answer): void {
    this.#say(`ends: ${answer.kind === 'refused' ? answer.reason : answer.kind}`);
    this.#identity = undefined;
    this.#life++;
    this.#later(this.#world.chance.between(1_000, 60_000), () => this.#begin());
  }

  #transact(
    producer: ProducerIdentity,
    { input, memberEpoch, offset: from }: Extract<Answer, { kind: 'offset' }>,
  ): void {
    const { chance, oracle } = this.#world;
    const { transactionalId } = this;
    const work: Work = { input, memberEpoch, from, to: from + chance.between(1, 5) };
    // Offsets often come last, when everything else is there.
    const spreadMs = chance.of(0.7) ? 10 : chance.between(10, 3_000);
    const offsetsAfterMs = chance.of(0.5) ? spreadMs : 0;
    const batches = this.#batchesOf(work);
    let left = batches.length + GROUPS.length;
    let isOver = false;
    const done = (answer: Answer): void => {
      if (isOver) return;
      if (answer.kind !== 'done') {
        isOver = true;
        this.#recover(producer, answer);
        return;
      }
      if (--left > 0) return;
      const commit = chance.of(0.9);
      if (commit) oracle.expects(producer, batches);
      this.#later(chance.of(0.9) ? 0 : chance.between(0, 3_000), () => this.#end(producer, commit));
    };
    this.#say(`sends ${from} to ${work.to} of ${input}`);
    for (const batch of batches) {
      this.#later(chance.between(0, spreadMs), () =>
        this.#ask({ kind: 'produce', transactionalId, producer, work, ...batch }, done),
      );
    }
    for (const groupId of GROUPS) {
      const delayMs = offsetsAfterMs + chance.between(0, spreadMs);
      this.#later(delayMs, () => this.#ask({ kind: 'add-offsets', transactionalId, producer, work, groupId }, done));
    }
  }

  #batchesOf({ from, to }: Work): Batch[] {
    const { chance } = this.#world;
    const batches: Batch[] = [];
    const sequences = new Map<number, number>();
    for (let offset = from; offset < to; ) {
      const partition = chance.below(PARTITION_COUNT);
      const count = Math.min(to - offset, chance.between(1, 2));
      const offsets = Array.from({ length: count }, (_, i) => offset + i);
      const sequence = sequences.get(partition) ?? 0;
      batches.push({ partition, sequence, offsets });
      sequences.set(partition, sequence + count);
      offset += count;
    }
    return batches;
  }

  #end(producer: ProducerIdentity, commit: boolean): void {
    const { transactionalId } = this;
    this.#life++;
    this.#ask({ kind: 'end', producer, transactionalId, commit }, (answer) => {
      if (answer.kind !== 'identity') {
        this.#recover(producer, answer);
        return;
      }
      this.#identity = answer.identity;
      this.#say(commit ? 'has committed' : 'has aborted');
      this.#begin();
    });
  }

  /** Aborts what cannot go on, if it may. */
  #recover(producer: ProducerIdentity, answer: Answer): void {
    const reason = answer.kind === 'refused' ? answer.reason : answer.kind;
    this.#say(`is told ${reason}`);
    if (reason === 'PRODUCER_FENCED' || reason === 'INVALID_PRODUCER_ID_MAPPING') {
      this.#startOver(answer);
      return;
    }
    if (reason === 'INVALID_TXN_STATE' || this.#world.chance.of(0.3)) {
      this.#initialise(producer);
      return;
    }
    this.#end(producer, false);
  }
}
