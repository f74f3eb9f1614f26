/**
 * A worker of the demo's group, in a process of its own. Handling a batch is writing down which offsets it had: once that
 * line is in the file, no `kill -9` takes it back, so the file tells exactly what this worker has handled.
 *
 *     worker.ts BROKER NAME FILE RECORDS_PER_SECOND
 *
 * Ends with exit code 0 on SIGTERM.
 */
import { openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, LogError } from 'tidelog';
import { flightsTopic } from './data.js';
import { COMMIT_INTERVAL_MS, GROUP, handledLine, SESSION_TIMEOUT_MS } from './group-terms.js';

const [, , broker = '', name = '', file = '', recordsPerSecond = ''] = process.argv;
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
const handled = openSync(file, 'a');

await using client = await connect(broker, { clientId: name });
const consumer = client.consumer(flightsTopic, {
  group: GROUP,
  signal: stop.signal,
  sessionTimeoutMs: SESSION_TIMEOUT_MS,
  autoCommit: { intervalMs: COMMIT_INTERVAL_MS },
});
try {
  for await (const batch of consumer.batches()) {
    const records = await batch.records();
    const first = records[0];
    const last = records.at(-1);
    if (first === undefined || last === undefined) continue;
    writeSync(handled, handledLine(first.partition, first.offset, last.offset));
    // What handling takes in earnest.
    await sleep((records.length / Number(recordsPerSecond)) * 1000);
  }
} catch (error) {
  if (!(error instanceof LogError && error.reason === 'CANCELLED')) throw error;
}
