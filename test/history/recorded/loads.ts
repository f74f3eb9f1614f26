/** Producers and readers that go on for as long as a test wants them to. */
import { type Client, LogError, type Producer } from '../../../src/index.js';
import { RecordedProducer, type RecordedProducerOptions } from './producer.js';
import { readAll } from './reader.js';
import { filled, type RecordedTopic, reasonOf } from './topic.js';

export interface LoadOptions {
  /** Asked before each send. A load ends as well when its producer is closed. */
  readonly goesOn: () => boolean;
}

export interface SendLoadOptions extends LoadOptions {
  /** Told of each send or call that failed. */
  readonly onFailure?: (error: unknown) => void;
  /** Size of a value, in bytes. Default: as short as can be. The history has values without what fills them up. */
  readonly valueBytes?: number;
}

export interface SingleLoadOptions extends SendLoadOptions, RecordedProducerOptions {
  /** Where the records go, in turn. */
  readonly partitions: readonly number[];
  /** Sends unanswered at once. */
  readonly window: number;
}

export interface ManyLoadOptions extends SendLoadOptions {
  readonly partition: number;
  /** Records of a call. */
  readonly count: number;
}

/** Sends one record after the other. */
export async function sendSingly(
  recorded: RecordedTopic,
  producer: Producer,
  process: string,
  { partitions, window, valueBytes = 0, ...options }: SingleLoadOptions,
): Promise<void> {
  const recordedProducer = new RecordedProducer(recorded, producer, process, options);
  let next = 0;
  const worker = (): Promise<void> =>
    repeat(options, async () => {
      const number = next++;
      const name = `${process}-${number}`;
      const partition = partitions[number % partitions.length] ?? 0;
      await recordedProducer.send({ name, record: { value: filled(name, valueBytes), partition } });
    });
  await Promise.all(Array.from({ length: window }, worker));
}

/** Sends many records a call. */
export async function sendMany(
  recorded: RecordedTopic,
  producer: Producer,
  process: string,
  { partition, count, valueBytes = 0, ...options }: ManyLoadOptions,
): Promise<void> {
  const recordedProducer = new RecordedProducer(recorded, producer, process);
  let call = 0;
  await repeat(options, async () => {
    const names = Array.from({ length: count }, (_, i) => `${process}-${call}-${i}`);
    call++;
    await recordedProducer.sendMany(
      names.map((name) => ({ name, record: { value: filled(name, valueBytes), partition } })),
    );
  });
}

async function repeat({ goesOn, onFailure }: SendLoadOptions, send: () => Promise<void>): Promise<void> {
  while (goesOn()) {
    try {
      await send();
    } catch (error) {
      if (!(error instanceof LogError)) throw error;
      onFailure?.(error);
      if (error.reason === 'CLOSED') return;
    }
  }
}

/** Reads all over and over, for as long as `goesOn` and the client is open. */
export async function readAllRepeatedly(
  recorded: RecordedTopic,
  client: Client,
  process: string,
  { goesOn }: LoadOptions,
): Promise<void> {
  for (let number = 0; goesOn(); number++) {
    try {
      await readAll(recorded, client, `${process}-${number}`);
    } catch (error) {
      if (reasonOf(error) === 'CLOSED') return;
      if (!(error instanceof LogError && error.retryable)) throw error;
    }
  }
}
