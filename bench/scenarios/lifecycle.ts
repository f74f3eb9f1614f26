/** Start, idle memory and recovery of the real command line. */

import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { bytes, connect, topic } from 'tidelog';
import { BrokerProcess } from '../../test/support/broker-process.js';

/** Long enough for the start's garbage to be collected or not: what a user sees in `ps`. */
const IDLE_MS = 1500;

export async function start(): Promise<{ startMs: number; idleMegabytes: number }> {
  const broker = await BrokerProcess.start();
  try {
    await sleep(IDLE_MS);
    return { startMs: broker.startSeconds * 1000, idleMegabytes: broker.residentBytes / 1e6 };
  } finally {
    await broker.stopAndRemove();
  }
}

export interface RecoveryResult {
  /** Scanned bytes over the time that the start took beyond a start on an empty directory. */
  readonly scanMegabytesPerSecond: number;
  readonly uncleanStartMs: number;
  readonly cleanStartMs: number;
}

/** Starts after `kill -9` and after a clean stop on the same `megabytes` of one partition. */
export async function recovery(megabytes: number, emptyStartMs: number): Promise<RecoveryResult> {
  const dataDir = BrokerProcess.temporaryDirectory();
  try {
    let broker = await BrokerProcess.start(dataDir);
    const written = await fill(broker.address, megabytes);
    await broker.stop('SIGKILL');
    broker = await BrokerProcess.start(dataDir);
    const uncleanStartMs = broker.startSeconds * 1000;
    await broker.stop('SIGTERM');
    broker = await BrokerProcess.start(dataDir);
    const cleanStartMs = broker.startSeconds * 1000;
    await broker.stop('SIGKILL');
    const scanSeconds = Math.max(uncleanStartMs - emptyStartMs, 1) / 1000;
    return { scanMegabytesPerSecond: written / scanSeconds / 1e6, uncleanStartMs, cleanStartMs };
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function fill(address: string, megabytes: number): Promise<number> {
  await using client = await connect(address);
  await client.admin.createTopic({ name: 'bench', partitions: 1 });
  await using producer = client.producer({ acks: 'written' });
  const to = topic('bench', { value: bytes() });
  const chunk = Array.from({ length: 1000 }, () => ({ value: Buffer.alloc(1000, 'x') }));
  for (let written = 0; written < megabytes; written++) await producer.sendMany(to, chunk);
  return megabytes * 1e6;
}
