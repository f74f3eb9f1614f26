/** Load by clients that outlive whatever is done to their broker or to their connections, checked to its end. */
import { type Client, connect, string, topic } from '../../src/index.js';
import { expectNoViolations } from '../history/checker.js';
import { History } from '../history/history.js';
import { readAllRepeatedly, sendMany, sendSingly } from '../history/recorded/loads.js';
import { readAll, TailReader } from '../history/recorded/reader.js';
import type { RecordedTopic } from '../history/recorded/topic.js';

const PARTITIONS = [0, 1, 2];
const orders = topic('orders', { value: string() });

/** How long clients wait for one answer before they give a connection up, in ms. */
const REQUEST_TIMEOUT_MS = 500;
/** How long the less patient of the producers tries to deliver a record, in ms. */
export const SHORT_DELIVERY_TIMEOUT_MS = 800;

export interface LoadedBroker {
  /** Where the clients under load connect. */
  readonly address: string;
  /** Where a client connects that nothing is done to; asked for when it is needed. */
  readonly calmAddress: () => string;
}

/**
 * Runs producers and readers while `disturb` runs, lets them finish, and checks what they did and saw.
 * @returns acknowledged records
 */
export async function checkUnderLoad(
  broker: LoadedBroker,
  disturb: (history: History) => Promise<void>,
): Promise<number> {
  const history = new History();
  const recorded: RecordedTopic = { history, topic: orders, partitionCount: PARTITIONS.length };
  await createTopic(broker.calmAddress());
  await using sending = await connect(broker.address, { requestTimeoutMs: REQUEST_TIMEOUT_MS });
  await using reading = await connect(broker.address, { requestTimeoutMs: REQUEST_TIMEOUT_MS });
  let going = true;
  const goesOn = (): boolean => going;
  const tails = ['tail-a', 'tail-b'].map((name) => new TailReader(recorded, name));
  const following = Promise.all(tails.map((tail) => tail.follow(reading)));
  const load = Promise.all([send(recorded, sending, goesOn), readAllRepeatedly(recorded, reading, 'all', { goesOn })]);
  try {
    // Neither readers nor producers end before they are told to, unless they fail.
    await Promise.race([load, following, disturb(history)]);
  } finally {
    going = false;
  }
  await load;
  await using calm = await connect(broker.calmAddress());
  await Promise.race([following, Promise.all(tails.map((tail) => tail.catchUp(calm)))]);
  await readAll(recorded, calm, 'last');
  await reading.close();
  await following;
  expectNoViolations(history);
  return history.acks;
}

async function send(recorded: RecordedTopic, client: Client, goesOn: () => boolean): Promise<void> {
  const options = { lingerMs: 1, retryBackoffMs: 10, retryBackoffMaxMs: 100, closeTimeoutMs: 0 };
  const durable = client.producer({ ...options, acks: 'durable' });
  const written = client.producer({ ...options, acks: 'written', compression: 'lz4' });
  // Some of its records wait behind others: they run out of time without ever being sent.
  const impatient = client.producer({
    ...options,
    deliveryTimeoutMs: SHORT_DELIVERY_TIMEOUT_MS,
    maxInFlight: 1,
    batchBytes: 1,
  });
  const many = client.producer(options);
  const load = { partitions: PARTITIONS, window: 8, goesOn };
  await Promise.all([
    sendSingly(recorded, durable, 'durable', load),
    sendSingly(recorded, written, 'written', load),
    sendSingly(recorded, impatient, 'impatient', load),
    sendMany(recorded, many, 'many', { partition: 0, count: 20, goesOn }),
  ]);
}

async function createTopic(address: string): Promise<void> {
  await using client = await connect(address);
  await client.admin.createTopic({
    name: orders.name,
    partitions: PARTITIONS.length,
    configs: { 'segment.bytes': '65536' },
  });
}
