/** Every method of a real broker process, fed with what no honest client sends. */
import { expect, test } from 'vitest';
import { MAX_REQUEST_FIELDS } from '../../src/rpc/field-count.js';
import { RawClient } from '../listeners/grpc/support.js';
import { BrokerProcess } from '../support/broker-process.js';
import { GoodClient } from '../support/good-client.js';
import { mutate } from '../support/mutate.js';
import { inflatedRequests, oddField } from '../support/odd-fields.js';
import { inForm, Programme } from '../support/programme.js';
import { type Answer, framed, RawConnection } from '../support/raw-http2.js';
import { undocumented } from './documented.js';
import { COMPACTED_TOPIC, FUZZED_TOPIC, SEEDS, TRANSACTIONAL_IDS } from './seeds.js';
import { type ServedMethod, servedMethods } from './served-methods.js';

const MIB = 1024 * 1024;
/** One in this many is sent; odd, so that each of the two forms of a field has its turn. */
const INFLATED_STRIDE = inForm({ short: 3, long: 1 });
const EXECUTIONS = inForm({ short: 20_000, long: 1_000_000 });
const CONNECTIONS = 4;
/** Calls open at once, on all connections. */
const IN_FLIGHT = 48;
/** A stall of the event loop that is not to happen: invariant 22. */
const STALL_MS = 200;
/** Methods that may rightly keep the caller waiting. */
const WAITING = /\/(Fetch|FetchStream|Heartbeat|Watch)$/;
/** How long a waiting method is listened to before the client cancels. */
const LISTEN_MS = 20;
/** Any other method answers by then, also on a busy machine. */
const ANSWER_LIMIT_MS = 20_000;

/** Few partitions, so that the topics that are created by chance do not fill the machine. */
const FLAGS = ['--partitions-max', '60', '--partitions-per-topic-max', '8', '--log-retention-ms', '-1'];

/** Runs `work` on a broker that must have served a good client all along. */
async function withBroker(work: (broker: BrokerProcess) => Promise<void>): Promise<void> {
  const broker = await BrokerProcess.start(undefined, FLAGS, { watched: true });
  try {
    await createTopics(broker.address);
    await initProducers(broker.address);
    const good = await GoodClient.start(broker.address);
    await work(broker);
    await good.expectServed();
    await good.stop();
  } finally {
    await broker.stopAndRemove();
  }
}

async function createTopics(address: string): Promise<void> {
  const raw = new RawClient(address);
  await raw.createTopic(FUZZED_TOPIC, 4);
  await raw.createTopic(COMPACTED_TOPIC, 1, { 'cleanup.policy': 'compact' });
  raw.close();
}

async function initProducers(address: string): Promise<void> {
  const raw = new RawClient(address);
  for (const [index, transactionalId] of TRANSACTIONAL_IDS.entries()) {
    const answer = await raw.call('ProduceService', 'InitProducer', { transactionalId });
    expect(answer).toEqual({ producerId: index, producerEpoch: 0 });
  }
  raw.close();
}

interface Input {
  readonly path: string;
  readonly body: Buffer;
}

/** One or more messages, with the damage that framing may have. */
function frames(message: Buffer, programme: Programme): Buffer {
  const kind = programme.below(40);
  if (kind === 0) return framed(message, { compressed: true });
  if (kind === 1) return framed(message, { length: programme.below(2 ** 32) });
  if (kind === 2) return Buffer.concat([framed(message), framed(message)]);
  if (kind === 3) return mutate(framed(message), (limit) => programme.below(limit));
  if (kind === 4) return framed(message).subarray(0, programme.below(5 + message.length));
  return framed(message);
}

/** Chooses a method and makes a request of it that is mostly almost valid. */
class Inputs {
  readonly #methods: readonly ServedMethod[];
  readonly #programme: Programme;

  constructor(methods: readonly ServedMethod[], programme: Programme) {
    this.#methods = methods;
    this.#programme = programme;
  }

  next(): Input {
    const method = this.#methods[this.#programme.below(this.#methods.length)]!;
    return { path: method.path, body: frames(this.#message(method), this.#programme) };
  }

  #message({ path, requestType }: ServedMethod): Buffer {
    const below = (limit: number): number => this.#programme.below(limit);
    const seeds = SEEDS[path]!;
    const valid = Buffer.from(requestType.encode(requestType.fromObject(seeds[below(seeds.length)]!)).finish());
    const kind = below(10);
    if (kind === 0) return valid;
    if (kind === 1) return Buffer.from(Array.from({ length: below(200) }, () => below(256)));
    if (kind < 6) return valid.length === 0 ? valid : mutate(valid, below);
    return Buffer.concat([valid, oddField(requestType, below)]);
  }
}

function check(input: Input, answer: Answer, broker: BrokerProcess): void {
  const shown = `${input.path} ${input.body.subarray(0, 2_000).toString('hex')}`;
  if (broker.ended) throw new Error(`the broker ended at or before ${shown}`);
  const wrong = undocumented(input.path, answer);
  if (wrong !== undefined) throw new Error(`${wrong}\n  on ${shown}`);
  if (answer.resetCode !== undefined) throw new Error(`reset with ${answer.resetCode} on ${shown}`);
  if (answer.code === undefined && !WAITING.test(input.path)) throw new Error(`no answer to ${shown}`);
}

test('every RPC has a valid request to begin with (invariants 21, 22)', async () => {
  const paths = (await servedMethods()).map((method) => method.path);
  expect(Object.keys(SEEDS).sort()).toEqual(paths.sort());
});

test(
  `${EXECUTIONS} broken requests end, stall and fill nothing, and are answered as documented (invariants 21, 22)`,
  async (context) => {
    const programme = new Programme(context);
    const inputs = new Inputs(await servedMethods(), programme);
    let accepted = 0;
    await withBroker(async (broker) => {
      const connections = await Promise.all(
        Array.from({ length: CONNECTIONS }, () => RawConnection.open(broker.address)),
      );
      const before = await broker.vitals('forget');
      let left = EXECUTIONS;
      const fuzz = async (connection: RawConnection): Promise<void> => {
        while (left > 0) {
          left--;
          const input = inputs.next();
          const limitMs = WAITING.test(input.path) ? LISTEN_MS : ANSWER_LIMIT_MS;
          const answer = await connection.call(input.path, input.body, { limitMs });
          check(input, answer, broker);
          programme.tried('requests');
          if (answer.code === 0) accepted++;
        }
      };
      const workers = Array.from({ length: IN_FLIGHT }, (_, index) => fuzz(connections[index % CONNECTIONS]!));
      await Promise.all(workers).finally(() => {
        left = 0;
      });
      for (const connection of connections) connection.close();
      // The test would prove little if hardly anything got past the first checks.
      expect(accepted).toBeGreaterThan(EXECUTIONS / 10);
      const after = await broker.vitals('collect');
      expect(after.longestMs).toBeLessThan(STALL_MS);
      expect(after.heldBytes - before.heldBytes).toBeLessThan(64 * MIB);
    });
  },
  inForm({ short: 240_000, long: 3_600_000 }),
);

/** For every field of the method's request, a valid request with very many of that field behind it. */
function inflatedInputs({ path, requestType }: ServedMethod, count: number): Input[] {
  const valid = requestType.encode(requestType.fromObject(SEEDS[path]![0]!)).finish();
  return inflatedRequests(requestType, count).map((inflated) => ({ path, body: Buffer.concat([valid, inflated]) }));
}

test(
  'requests that decode to much more than their size neither stall the broker nor fill it (invariants 21, 22)',
  async (context) => {
    const programme = new Programme(context);
    // Just as much as is decoded; in the long form also the largest request, nearly, of two bytes a field.
    const counts = [MAX_REQUEST_FIELDS - 100, ...inForm({ short: [], long: [4 * MIB - 100] })];
    await withBroker(async (broker) => {
      const connection = await RawConnection.open(broker.address);
      const before = await broker.vitals('forget');
      const all = (await servedMethods()).flatMap((method) => counts.flatMap((count) => inflatedInputs(method, count)));
      const inputs = all.filter((_, index) => index % INFLATED_STRIDE === 0);
      for (const input of inputs) {
        const limitMs = WAITING.test(input.path) ? LISTEN_MS * 5 : ANSWER_LIMIT_MS;
        const answer = await connection.call(input.path, framed(input.body), { limitMs });
        check(input, answer, broker);
        programme.tried('requests');
      }
      connection.close();
      const after = await broker.vitals('collect');
      expect(after.longestMs).toBeLessThan(STALL_MS);
      expect(after.heldBytes - before.heldBytes).toBeLessThan(64 * MIB);
      expect(after.residentBytes).toBeLessThan(512 * MIB);
    });
  },
  inForm({ short: 240_000, long: 1_200_000 }),
);
