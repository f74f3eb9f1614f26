/** Carries out what the state machine asks for, one step after the other. */
import type { ProducerIdentity, TransactionPartition } from '../../../../src/broker/transactions/coordinator-types.js';
import type { TransactionEffect } from '../../../../src/broker/transactions/transaction-types.js';
import type { Disk, Life } from './life.js';
import type { World } from './world.js';

export const RETRY_MS = 50;
const FAILS = 0.03;

export class Effects {
  readonly #world: World;
  readonly #disk: Disk;
  readonly #life: Life;

  constructor(world: World, disk: Disk, life: Life) {
    this.#world = world;
    this.#disk = disk;
    this.#life = life;
  }

  /** In their order, up to `persist`. @param done told whether they are durable; if not, nothing has changed */
  makeDurable(effects: readonly TransactionEffect[], done: (isDurable: boolean) => void): void {
    const [effect, ...rest] = effects;
    if (effect?.kind === 'flush') {
      const isSkipped = this.#world.defects.has('a commit is decided before its records are durable');
      this.#flush(isSkipped ? [] : effect.partitions, () => this.makeDurable(rest, done));
    } else if (effect?.kind === 'persist') {
      const { transactionalId, record } = effect;
      this.#life.later(() => this.#disk.log.write(transactionalId, record, done));
    } else {
      done(true);
    }
  }

  #flush(places: readonly TransactionPartition[], done: () => void): void {
    const [place, ...rest] = places;
    if (place === undefined) {
      done();
      return;
    }
    this.#life.later(() => {
      this.#disk.partitions[place.partition]?.flush();
      this.#flush(rest, done);
    });
  }

  /** The markers and offsets, in any order. */
  complete(effects: readonly TransactionEffect[], done: () => void): void {
    const steps = effects.flatMap((effect) => {
      if (effect.kind === 'markers') {
        return effect.partitions.map(
          ({ partition }) =>
            (told: () => void) =>
              this.mark(partition, effect, told),
        );
      }
      if (effect.kind !== 'end-offsets') return [];
      return effect.groupIds.map((groupId) => (told: () => void) => this.endOffsets(groupId, effect, told));
    });
    this.all(steps, done);
  }

  /** @param done told once when each of the steps has told */
  all(steps: readonly ((told: () => void) => void)[], done: () => void): void {
    let left = steps.length + 1;
    const told = (): void => {
      if (--left === 0) done();
    };
    for (const step of steps) step(told);
    this.#life.later(told);
  }

  /** @param end the epoch is the marker's */
  mark(index: number, end: ProducerIdentity & { readonly commit: boolean }, done: () => void): void {
    this.#untilItWorks(() => {
      const partition = this.#disk.partitions[index];
      partition?.endTransaction(end, end.commit);
      this.#life.later(() => {
        partition?.flush();
        done();
      });
    });
  }

  endOffsets(groupId: string, end: ProducerIdentity & { readonly commit: boolean }, done: () => void): void {
    this.#untilItWorks(() => {
      this.#disk.groups.find((group) => group.groupId === groupId)?.end(end, end.commit, done);
    });
  }

  #untilItWorks(attempt: () => void): void {
    const { weather, chance } = this.#world;
    const fails = weather.isStormy && chance.of(FAILS);
    if (fails) this.#life.later(() => this.#untilItWorks(attempt), RETRY_MS);
    else this.#life.later(attempt);
  }
}
