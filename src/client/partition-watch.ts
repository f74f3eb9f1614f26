/** Notices partitions that are added to a topic while it is read. */
import type { Clock, Timer } from '../core/clock.js';
import { type LogError, toLogError } from '../core/errors.js';
import type { Logger } from '../core/logger.js';
import { type PartitionSpan, type PlanContext, planAdded } from './positions.js';

export interface PartitionWatchContext extends PlanContext {
  readonly runtime: { readonly clock: Clock; readonly logger: Logger };
}

/**
 * Looks a topic up every `metadataMaxAgeMs` and tells of partitions that were added, once each. A lookup that fails is
 * no news. Ends by itself when the topic is found recreated: what is under way then fails of its own.
 */
export class PartitionWatch {
  readonly #topic: string;
  readonly #topicId: string;
  readonly #context: PartitionWatchContext;
  readonly #onAdded: (spans: readonly PartitionSpan[]) => void;
  readonly #stopped = new AbortController();
  #partitionCount: number;
  #timer: Timer | undefined;

  /** @param onAdded must not throw */
  constructor(
    topic: string,
    plan: { readonly topicId: string; readonly partitionCount: number },
    context: PartitionWatchContext,
    onAdded: (spans: readonly PartitionSpan[]) => void,
  ) {
    this.#topic = topic;
    this.#topicId = plan.topicId;
    this.#partitionCount = plan.partitionCount;
    this.#context = context;
    this.#onAdded = onAdded;
    this.#wait();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#stopped.abort();
  }

  #wait(): void {
    const { metadata, runtime } = this.#context;
    this.#timer = runtime.clock.setTimer(metadata.maxAgeMs, () => {
      this.#look().catch((error) => this.#failed(toLogError(error)));
    });
  }

  async #look(): Promise<void> {
    const { topicId, partitionCount } = await this.#context.metadata.refresh(this.#topic);
    if (this.#stopped.signal.aborted || topicId !== this.#topicId) return;
    if (partitionCount > this.#partitionCount) await this.#add(partitionCount);
    if (!this.#stopped.signal.aborted) this.#wait();
  }

  async #add(partitionCount: number): Promise<void> {
    const known = this.#partitionCount;
    const added = Array.from({ length: partitionCount - known }, (_, i) => known + i);
    const spans = await planAdded(this.#topic, added, this.#stopped.signal, this.#context);
    if (this.#stopped.signal.aborted) return;
    this.#partitionCount = partitionCount;
    this.#onAdded(spans);
  }

  #failed(error: LogError): void {
    if (this.#stopped.signal.aborted) return;
    this.#context.runtime.logger.debug(
      { topic: this.#topic, reason: error.reason, error: error.message },
      'the partitions of a topic that is being read could not be looked up',
    );
    this.#wait();
  }
}
