/** Leader epochs are written down before the first batch that carries them: a flipped bit in one is found by that. */
import { leaderEpochOf } from '../../batch/layout.js';
import type { EngineContext, LogState } from './log-state.js';

export class EpochRecorder {
  readonly #context: Pick<EngineContext, 'recordEpochs' | 'firstAppends'>;
  readonly #state: LogState;

  constructor(context: Pick<EngineContext, 'recordEpochs' | 'firstAppends'>, state: LogState) {
    this.#context = context;
    this.#state = state;
  }

  /** Whether `batches`, appended next, may be written at once. */
  areRecorded(batches: readonly Buffer[]): boolean {
    return this.#state.epochs === this.#state.recordedEpochs && this.#areExpected(batches);
  }

  /**
   * Makes the epochs of `batches` durable as those of what is appended next. Nothing else may be appended meanwhile.
   * @throws LogError STORAGE_FULL, STORAGE_ERROR, RESOURCE_LIMIT
   */
  async record(batches: readonly Buffer[]): Promise<void> {
    const state = this.#state;
    if (!this.#areExpected(batches)) state.epochs = state.epochs.continuedBy(batches);
    await this.#context.recordEpochs();
    await this.#context.firstAppends.pass();
  }

  #areExpected(batches: readonly Buffer[]): boolean {
    return batches.every((batch) => this.#state.epochs.endsIn(leaderEpochOf(batch, 0)));
  }
}
