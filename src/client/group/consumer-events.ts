/** Tells the owner of a consumer which partitions come and go. */
import { errorMessage, LogError } from '../../core/errors.js';
import type { Logger } from '../../core/logger.js';
import type { TopicPartition } from './types.js';

/**
 * `assigned`: these are the consumer's from here on. `revoked`: they go to somebody else once the listeners are through,
 * and can be committed until then. `lost`: they are gone already, and nothing of them can be committed any more.
 */
export type ConsumerEvent = (typeof EVENTS)[number];

const EVENTS = ['assigned', 'revoked', 'lost'] as const;

/** May be async: it is awaited. */
export type PartitionsListener = (partitions: readonly TopicPartition[]) => void | Promise<void>;

/** Invariant: listeners run one after the other, in the order in which things happened. */
export class ConsumerEvents {
  readonly #logger: Logger;
  readonly #listeners = new Map<ConsumerEvent, Set<PartitionsListener>>();
  /** Settled when the listeners of everything that was told of before are through. Never rejects. */
  #turn: Promise<void> = Promise.resolve();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** @throws LogError INVALID_REQUEST when there is no such event */
  on(event: ConsumerEvent, listener: PartitionsListener): void {
    if (!EVENTS.includes(event)) {
      throw new LogError('INVALID_REQUEST', `A consumer has no event ${event}: it has ${EVENTS.join(', ')}.`);
    }
    const listeners = this.#listeners.get(event) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(event, listeners);
  }

  off(event: ConsumerEvent, listener: PartitionsListener): void {
    this.#listeners.get(event)?.delete(listener);
  }

  /**
   * Tells the listeners when their turn has come. Resolves when they are through; never rejects: a listener that fails
   * is logged.
   * @param partitions asked when the turn has come; nobody is told of none
   */
  tell(event: ConsumerEvent, partitions: () => readonly TopicPartition[]): Promise<void> {
    this.#turn = this.#turn.then(() => this.#tellAll(event, partitions()));
    return this.#turn;
  }

  async #tellAll(event: ConsumerEvent, partitions: readonly TopicPartition[]): Promise<void> {
    if (partitions.length === 0) return;
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        await listener(partitions);
      } catch (error) {
        this.#logger.error({ event, partitions, error: errorMessage(error) }, 'a listener of a consumer failed');
      }
    }
  }
}
