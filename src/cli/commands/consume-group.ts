/** `tidelog consume --group`: a member of a consumer group that commits what it has printed. */
import type { Client } from '../../client/client.js';
import type { Consumer } from '../../client/consumer.js';
import type { ConsumerOptions } from '../../client/consumer-options.js';
import { systemClock, type Timer } from '../../core/clock.js';
import { LogError } from '../../core/errors.js';
import type { Output } from '../output.js';
import type { RecordPrinter } from '../record-printer.js';

type Bytes = Buffer | null;

/** What is printed, and until when. */
export interface GroupConsumption {
  readonly printer: RecordPrinter;
  readonly output: Output;
  /** Whether the printer is to stop within a batch: then records are taken one by one. */
  readonly isLimited: boolean;
  /** Ends the command: what was printed is committed, and the group left. */
  readonly interrupt: AbortSignal;
}

/**
 * Prints until the printer wants no more, or the interrupt. The consumer may commit what the loop has finished at any
 * time: so the loop goes on only after the system has taken what was printed.
 */
export async function consumeInGroup(
  client: Client,
  name: string,
  options: Omit<ConsumerOptions, 'signal'>,
  consumption: GroupConsumption,
): Promise<void> {
  // A group may wait for topics that do not exist yet; a person who names one has mistyped it.
  await client.admin.getTopic(name);
  const { bytes, nullable, topic } = await import('../../client/serdes.js');
  const waits = new InterruptibleWaits(consumption.interrupt);
  // Whoever ends without leaving is waited for by the others until its session is over.
  consumption.output.throwWhenClosed();
  const target = topic(name, { key: bytes(), value: nullable(bytes()) });
  const consumer = client.consumer(target, { ...options, signal: waits.signal });
  const stopPatience = explainWhenEndingTakesLong(consumption.interrupt);
  try {
    await (consumption.isLimited ? printRecords : printBatches)(consumer, consumption, waits);
  } catch (error) {
    // Ctrl-C is how one stops following.
    if (!waits.signal.aborted || !(error instanceof LogError) || error.reason !== 'CANCELLED') throw error;
  } finally {
    await consumer.close();
    stopPatience();
  }
}

/** How long after Ctrl-C somebody wonders whether it was noticed, in ms. */
const PATIENCE_MS = 1_500;

/** A broker that cannot be reached, or a full disk, keeps the last commit waiting. Returns what calls it off. */
function explainWhenEndingTakesLong(interrupt: AbortSignal): () => void {
  let timer: Timer | undefined;
  const onInterrupt = (): void => {
    timer = systemClock.setTimer(PATIENCE_MS, () => {
      process.stderr.write(
        'tidelog: committing what was printed, and leaving the group, before it ends. Ctrl-C again ends it at once; then ' +
          'what was printed since the last commit is printed again.\n',
      );
    });
  };
  interrupt.addEventListener('abort', onInterrupt, { once: true });
  return () => {
    interrupt.removeEventListener('abort', onInterrupt);
    timer?.cancel();
  };
}

async function printBatches(
  consumer: Consumer<Buffer, Bytes>,
  { printer, output }: GroupConsumption,
  waits: InterruptibleWaits,
): Promise<void> {
  for await (const batch of consumer.batches()) {
    waits.hold();
    await printer.printBatch(batch);
    await output.flush();
    if (waits.isInterrupted) {
      await batch.commit();
      return;
    }
    waits.release();
  }
}

async function printRecords(
  consumer: Consumer<Buffer, Bytes>,
  { printer, output }: GroupConsumption,
  waits: InterruptibleWaits,
): Promise<void> {
  for await (const record of consumer) {
    waits.hold();
    printer.printRecord(record.partition, record);
    await output.flush();
    if (waits.isInterrupted || !printer.wantsMore) {
      await consumer.commit(record);
      return;
    }
    waits.release();
  }
}

/** An interrupt that ends the wait for more at once, but not what is being printed: that is to be committed first. */
class InterruptibleWaits {
  readonly #interrupt: AbortSignal;
  readonly #waiting = new AbortController();
  #isHeld = false;

  constructor(interrupt: AbortSignal) {
    this.#interrupt = interrupt;
    interrupt.addEventListener('abort', () => {
      if (!this.#isHeld) this.#waiting.abort();
    });
  }

  /** For whoever waits. */
  get signal(): AbortSignal {
    return this.#waiting.signal;
  }

  get isInterrupted(): boolean {
    return this.#interrupt.aborted;
  }

  /** The wait is over, and something is being printed. */
  hold(): void {
    this.#isHeld = true;
  }

  /** Back to waiting. */
  release(): void {
    this.#isHeld = false;
  }
}
