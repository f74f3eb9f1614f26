/**
 * A broker that compacts the data directory named on its command line and watches its own event loop meanwhile. Prints
 * the longest and the 99th percentile of the delays, in ms, as JSON.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBroker } from 'tidelog/broker';

const NS_PER_MS = 1e6;
/** The cleaner begins this long after the start, when the delays of the start itself are over. */
const BACKOFF_MS = 2_000;

const dataDir = process.argv[2];
if (dataDir === undefined) throw new Error('name a data directory');

const ignore = (): void => {};
let isCompacted = false;
const broker = await startBroker({
  storage: { dataDir },
  lifecycle: { cleanerBackoffMs: BACKOFF_MS },
  logger: {
    debug: ignore,
    warn: ignore,
    error: (fields, message) => process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
    info: (_fields, message) => {
      if (message === 'compacted') isCompacted = true;
    },
  },
});
const delays = monitorEventLoopDelay({ resolution: 1 });
await sleep(BACKOFF_MS / 2);
delays.enable();
while (!isCompacted) await sleep(100);
delays.disable();
const result = { longestMs: delays.max / NS_PER_MS, p99Ms: delays.percentile(99) / NS_PER_MS };
process.stdout.write(`${JSON.stringify(result)}\n`);
await broker.close();
