/**
 * Loaded into a broker process before anything else (`node --import`): tells over the IPC channel how long the event
 * loop was held up and what memory the process holds. JavaScript, because Node.js loads it as it is.
 */
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const INTERVAL_MS = 5;
/** Below this, a turn of the loop is not worth asking the system about. */
const NOTABLE_MS = 50;

/**
 * CPU time of the main thread, in ms. On a machine with other work a turn may take long without the thread having run:
 * that is not the loop's doing, so it is the thread's own time that counts.
 */
function threadCpuMs() {
  const [onCpuNs] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ', 1);
  return Number(onCpuNs) / 1e6;
}

let longestMs = 0;
let turnStarted = performance.now();
let cpuBefore = threadCpuMs();

setInterval(() => {
  const wallMs = performance.now() - turnStarted;
  const cpu = threadCpuMs();
  if (wallMs > NOTABLE_MS) longestMs = Math.max(longestMs, Math.min(wallMs, cpu - cpuBefore));
  turnStarted = performance.now();
  cpuBefore = threadCpuMs();
}, INTERVAL_MS).unref();

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

process.on('message', (request) => {
  if (request === 'collect') collectGarbage();
  const { rss, heapUsed, external } = process.memoryUsage();
  process.send?.({ longestMs, residentBytes: rss, heldBytes: heapUsed + external });
  if (request === 'forget') longestMs = 0;
});
process.channel?.unref();
