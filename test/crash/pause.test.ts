/**
 * Invariants 1, 2, 4, 5 and 7 when the broker stands still: SIGSTOP and SIGCONT at random moments, for longer than its
 * clients wait for answers. They give up their connections, send again over new ones, and some records fail; the broker,
 * once it goes on, finds requests that nobody waits for any more.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'vitest';
import { BrokerProcess } from '../support/broker-process.js';
import { inForm, Programme } from '../support/programme.js';
import { checkUnderLoad, SHORT_DELIVERY_TIMEOUT_MS } from './lasting-load.js';

const HISTORIES = inForm({ short: 1, long: 40 });
const PAUSES = 8;
const MAX_RUN_MS = 200;
const MAX_PAUSE_MS: number = 1.5 * SHORT_DELIVERY_TIMEOUT_MS;

async function checkPauses(programme: Programme): Promise<void> {
  const broker = await BrokerProcess.start();
  const { address } = broker;
  try {
    const acks = await checkUnderLoad({ address, calmAddress: () => address }, async (history) => {
      for (let pause = 0; pause < PAUSES; pause++) {
        await sleep(programme.below(MAX_RUN_MS));
        const pauseMs = programme.below(MAX_PAUSE_MS);
        history.crash(`paused for ${pauseMs} ms`);
        broker.pause();
        await sleep(pauseMs);
        broker.resume();
        programme.tried('pauses');
      }
    });
    programme.tried('acknowledged records', acks);
  } finally {
    await broker.stopAndRemove();
  }
}

test(
  'pauses longer than the deadlines of clients lose, reorder and hide nothing (invariants 1, 2, 4, 5, 7)',
  async (context) => {
    const programme = new Programme(context);
    for (let i = 0; i < HISTORIES; i++) await checkPauses(programme);
  },
  inForm({ short: 60_000, long: 1_800_000 }),
);
