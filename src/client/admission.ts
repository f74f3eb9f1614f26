/** Which records may be put into a batch right now, and who waits for that. */
import { LogError } from '../core/errors.js';
import type { ByteGate, GateEntry } from './byte-gate.js';
import { cancelled, closedError, onAbort, throwIfAborted } from './failures.js';
import type { Intake } from './intake.js';
import type { TopicState, TopicWaiter } from './topic-state.js';

/** One call of `send` that has to wait. Neither function may throw. */
export interface WaitingSend {
  readonly state: TopicState;
  readonly partition: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly append: () => void;
  readonly reject: (error: LogError) => void;
}

export interface AdmissionContext {
  readonly intake: Intake;
  readonly gate: ByteGate;
  readonly maxWaitingSends: number;
  /** Somebody waits for room from now on. */
  readonly onWaiting: () => void;
}

/**
 * A record may be appended when its topic is known and there is room in the buffer. Invariant: whoever waits is served in the
 * order of arrival, and nobody passes by.
 */
export class Admission {
  readonly #context: AdmissionContext;
  /** How each waiting `send` gives up. */
  readonly #waiting = new Set<(error: LogError) => void>();
  #closed = false;

  constructor(context: AdmissionContext) {
    this.#context = context;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** From now on nothing is admitted. */
  close(): void {
    this.#closed = true;
  }

  /** Whether a record that names this partition, or none, may be appended without asking the broker first. */
  isCurrent(state: TopicState, partition: number | undefined): boolean {
    const { intake } = this.#context;
    return intake.isReady(state, partition) && !intake.isOld(state);
  }

  mayAppend(state: TopicState, partition: number | undefined, signal: AbortSignal | undefined): boolean {
    if (this.#closed || signal?.aborted) return false;
    return this.#context.gate.isOpen && this.#context.intake.isReady(state, partition);
  }

  /**
   * Resolves when the topic is known, as far as the record's partition asks for it, and there is room.
   * @throws LogError CLOSED, CANCELLED, and what the lookup fails with
   */
  async admitted(state: TopicState, partition: number | undefined, signal: AbortSignal | undefined): Promise<void> {
    const { intake, gate } = this.#context;
    throwIfAborted(signal);
    this.#throwIfClosed();
    if (!this.isCurrent(state, partition)) await intake.known(state);
    while (!intake.isReady(state, partition)) await intake.known(state);
    // Others may have been resumed before and used the room up again.
    while (!gate.isOpen) await this.room(signal);
    this.#throwIfClosed();
  }

  /** Resolves when there is room and the caller's turn has come. @throws LogError CANCELLED */
  room(signal: AbortSignal | undefined): Promise<void> {
    const room = this.#context.gate.room(signal);
    this.#context.onWaiting();
    return room;
  }

  /**
   * Queues a `send` until its topic is known and there is room.
   * @throws LogError RESOURCE_LIMIT when too many wait already
   */
  later({ state, partition, signal, append, reject }: WaitingSend): void {
    const { intake, maxWaitingSends } = this.#context;
    if (this.#waiting.size >= maxWaitingSends) throw tooManyWaiting(maxWaitingSends);
    const entry: GateEntry = {
      abandoned: false,
      run: () => {
        leave();
        if (this.#closed) reject(closedError('producer'));
        else append();
      },
    };
    const leave = (): void => {
      this.#waiting.delete(giveUp);
      stopListening();
    };
    const giveUp = (error: LogError): void => {
      entry.abandoned = true;
      leave();
      reject(error);
    };
    const stopListening = onAbort(signal, () => giveUp(cancelled(signal as AbortSignal)));
    this.#waiting.add(giveUp);
    const waiter: TopicWaiter = {
      known: () => {
        if (entry.abandoned) return;
        // What was known to others already may not be enough for this record, or for one before it.
        if (intake.isReady(state, partition)) this.#enterGate(entry);
        else intake.whenKnown(state, waiter);
      },
      failed: (error) => {
        if (!entry.abandoned) giveUp(error);
      },
    };
    if (this.isCurrent(state, partition)) this.#enterGate(entry);
    else intake.whenKnown(state, waiter);
  }

  /** Fails every `send` that waits. */
  giveUp(error: LogError): void {
    for (const giveUp of [...this.#waiting]) giveUp(error);
  }

  #enterGate(entry: GateEntry): void {
    this.#context.gate.enter(entry);
    this.#context.onWaiting();
  }

  #throwIfClosed(): void {
    if (this.#closed) throw closedError('producer');
  }
}

function tooManyWaiting(maxWaitingSends: number): LogError {
  return new LogError(
    'RESOURCE_LIMIT',
    `${maxWaitingSends} calls of send wait for room already: await some of them, or use sendMany.`,
    { metadata: { max_waiting_sends: maxWaitingSends } },
  );
}
