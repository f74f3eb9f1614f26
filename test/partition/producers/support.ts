import { type BatchOptions, encodeBatch } from '../../../src/batch/builder.js';
import { encodeTransactionMarker } from '../../../src/batch/control.js';
import { nextOffsetOf, stampBatch } from '../../../src/batch/layout.js';
import { LogError, type Reason } from '../../../src/core/errors.js';
import { ProducerBudget } from '../../../src/partition/producers/producer-budget.js';
import { ProducerStates, type ProducerVerdict } from '../../../src/partition/producers/producer-states.js';

export const DAY_MS = 86_400_000;

/** What a producer sends: `count` records from `sequence` on. */
export interface Sent {
  readonly id?: number;
  readonly epoch?: number;
  readonly sequence: number;
  readonly count?: number;
  readonly transactional?: boolean;
  readonly timestampMs?: number;
  readonly key?: Buffer;
}

export function producerBatch({
  id = 1,
  epoch = 0,
  sequence,
  count = 1,
  transactional,
  timestampMs = 1000,
  key,
}: Sent): Buffer {
  const options: BatchOptions = {
    producerId: id,
    producerEpoch: epoch,
    baseSequence: sequence,
    transactional: transactional ?? false,
  };
  const value = Buffer.from(`${id}/${epoch}/${sequence}`);
  return encodeBatch(
    Array.from({ length: count }, () => ({ timestampMs, key: key ?? null, value })),
    options,
  );
}

/** Producer states with the end of a log that takes whatever they accept. */
export class StatesUnderTest {
  readonly states: ProducerStates;
  end = 0;
  nowMs = 1000;

  constructor(options: { limit?: number; expirationMs?: number; budget?: ProducerBudget } = {}) {
    const { limit = 1000, expirationMs = DAY_MS, budget = new ProducerBudget(limit) } = options;
    this.states = new ProducerStates({ topic: 't', partition: 0, budget, expirationMs });
  }

  /** What became of the batch: its base offset, `dup` and the one it has already, or why it was refused. */
  send(sent: Sent): number | string {
    const batch = producerBatch(sent);
    const verdict = this.states.check(batch);
    if (verdict instanceof LogError) return verdict.reason;
    if (verdict.kind === 'duplicate') return `dup ${verdict.baseOffset}`;
    return this.#note(batch);
  }

  /** A batch that is in the log, as a replay meets it. */
  replay(sent: Sent): number {
    return this.#note(producerBatch(sent));
  }

  refusal(sent: Sent): LogError {
    const verdict: ProducerVerdict = this.states.check(producerBatch(sent));
    if (verdict instanceof LogError) return verdict;
    throw new Error(`accepted: ${verdict.kind}`);
  }

  reason(sent: Sent): Reason {
    return this.refusal(sent).reason;
  }

  marker(id: number, epoch: number, commit: boolean): number {
    const marker = { producerId: id, producerEpoch: epoch, commit, coordinatorEpoch: 7, timestampMs: this.nowMs };
    return this.#note(encodeTransactionMarker(marker));
  }

  #note(batch: Buffer): number {
    const offset = this.end;
    stampBatch(batch, 0, offset, 0);
    this.states.note(batch, 0, this.nowMs);
    this.end = nextOffsetOf(batch, 0);
    return offset;
  }
}
