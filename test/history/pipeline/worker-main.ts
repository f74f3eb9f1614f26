/**
 * A worker of the pipeline in a process of its own, until SIGTERM: reads records, sends one for each to every output, and commits
 * both in one transaction. What it does is appended to a file at once, line by line.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, connect, LogError, string, type Transaction, topic } from '../../../src/index.js';
import { randomFrom } from '../../support/random.js';
import type { HistoryEvent } from '../events.js';
import { nowUs } from '../timed-history.js';
import type { WorkerOptions } from './worker-options.js';

const options = JSON.parse(process.argv[2] ?? '') as WorkerOptions;
const file = openSync(options.eventsFile, 'a');
const random = randomFrom(options.seed);
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());

const typed = (name: string) => topic(name, { key: string(), value: string() });
const outputs = options.outputs.map(typed);
let sends = options.firstSend;
let transactions = 0;

/** Thrown to give a transaction up. */
class GivenUp extends Error {}

function note(event: HistoryEvent): void {
  writeSync(file, `${JSON.stringify({ atUs: nowUs(), event })}\n`);
}

async function connected(): Promise<Client> {
  for (;;) {
    try {
      return await connect(options.address, { requestTimeoutMs: options.requestTimeoutMs, clientId: options.process });
    } catch (error) {
      if (!(error instanceof LogError) || !error.retryable || stop.signal.aborted) throw error;
    }
  }
}

/** What one transaction does with the values that were read. */
async function transform(t: Transaction, values: readonly string[], id: string): Promise<void> {
  const { process } = options;
  const sent: Promise<void>[] = [];
  for (const value of values) {
    for (const output of outputs) {
      const send = ++sends;
      // The attempt is part of the value: the checker tells one from another by it.
      const attempt = `${value}/${id}`;
      note({ kind: 'send', process, send, topic: output.name, value: attempt, transaction: id });
      sent.push(
        t.send(output, { key: value, value: attempt }).then(
          ({ partition, offset }) => note({ kind: 'ack', process, send, partition, offset }),
          (error) => {
            const outcome = error instanceof LogError ? error.outcome : 'unknown';
            note({ kind: 'error', process, send, outcome });
            throw error;
          },
        ),
      );
    }
  }
  await Promise.all(sent);
  if (random() < 0.5) await sleep(random() * options.maxRestMs);
  if (random() < options.abortShare) throw new GivenUp();
}

/** What is known of the end of a transaction that was not committed for sure. */
function resultOf(error: unknown, askedToCommit: boolean): 'aborted' | 'unknown' {
  if (!askedToCommit) return 'aborted';
  return error instanceof LogError && error.outcome === 'none' ? 'aborted' : 'unknown';
}

async function work(client: Client): Promise<void> {
  const { group, sessionTimeoutMs, transactionalId, transactionTimeoutMs: timeoutMs, process } = options;
  await using consumer = client.consumer(typed(options.input), { group, sessionTimeoutMs, signal: stop.signal });
  await using tx = client.transactionalProducer(transactionalId, { timeoutMs, lingerMs: 0 });
  for await (const batch of consumer.batches()) {
    const values = (await batch.records()).map(({ value }) => value);
    const transaction = `${process}-${++transactions}`;
    let askedToCommit = false;
    try {
      await tx.transaction(async (t) => {
        await transform(t, values, transaction);
        t.commitOffsets(consumer, batch);
        note({ kind: 'commit-transaction', process, transaction });
        askedToCommit = true;
      });
      note({ kind: 'end-transaction', process, transaction, result: 'committed' });
    } catch (error) {
      note({ kind: 'end-transaction', process, transaction, result: resultOf(error, askedToCommit) });
      if (error instanceof GivenUp) continue;
      if (!(error instanceof LogError) || error.reason === 'PRODUCER_FENCED') throw error;
      // Whatever it was, the consumer is where the transaction began, or has lost the partition.
    }
  }
}

const client = await connected();
note({ kind: 'crash', what: `${options.process} has started` });
try {
  await work(client);
} catch (error) {
  if (!stop.signal.aborted || !(error instanceof LogError) || error.reason !== 'CANCELLED') throw error;
} finally {
  await client.close();
  closeSync(file);
}
