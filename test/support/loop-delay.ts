const INTERVAL_MS = 1;

/**
 * How long a turn of the event loop takes at most while `work` is under way, in ms: of its time what this process has spent
 * computing, so that a machine busy with something else does not count.
 */
export async function longestTurnMs(work: () => Promise<unknown>): Promise<number> {
  let longestMs = 0;
  let last = performance.now();
  let cpu = process.cpuUsage();
  const tick = (): void => {
    const { user, system } = process.cpuUsage(cpu);
    longestMs = Math.max(longestMs, Math.min(performance.now() - last, (user + system) / 1000));
    last = performance.now();
    cpu = process.cpuUsage();
  };
  const ticker = setInterval(tick, INTERVAL_MS);
  try {
    await work();
    tick();
  } finally {
    clearInterval(ticker);
  }
  return longestMs;
}
