import { describe, expect, test } from 'vitest';
import { ByteBudget } from '../../../src/core/byte-budget.js';
import { silentLogger } from '../../../src/core/logger.js';
import { Semaphore } from '../../../src/core/semaphore.js';
import { OpenReaders } from '../../../src/listeners/grpc/open-readers.js';
import { type Gate, OutgoingBytes } from '../../../src/listeners/grpc/outgoing-bytes.js';
import { ManualClock } from '../../support/manual-clock.js';
import { until } from '../../support/until.js';

const LIMIT = 1_000_000;

interface Rig {
  readonly total: ByteBudget;
  readonly outgoing: OutgoingBytes;
  readonly gate: Gate;
  readonly abort: () => void;
}

function rig(): Rig {
  const total = new ByteBudget(LIMIT);
  const readers = new OpenReaders({ budgets: [total], clock: new ManualClock(0), logger: silentLogger });
  const controller = new AbortController();
  return {
    total,
    outgoing: new OutgoingBytes(new ByteBudget(LIMIT, total)),
    gate: { reads: new Semaphore(8), readers, signal: controller.signal },
    abort: () => controller.abort(),
  };
}

/** A read of all that may be read, at most `available`. */
function reading(available: number): (maxBytes: number) => Promise<number> {
  return async (maxBytes) => Math.min(maxBytes, available);
}

const itself = (bytes: number): number => bytes;

describe('a call without room', () => {
  test('one that is over waits no longer, also when there never is room again (invariant 21)', async () => {
    const { total, outgoing, gate, abort } = rig();
    outgoing.add(10);
    total.charge(LIMIT);
    const read = outgoing.admitting(gate)(reading(100), itself);
    await until(() => total.waitingCount === 1, 'it waits');
    abort();
    await read;
    expect(total.waitingCount).toBe(0);
  });

  test('reads a little once its client has taken all that it was sent', async () => {
    const { total, outgoing, gate } = rig();
    const taken = outgoing.add(10);
    total.charge(2 * LIMIT);
    const read = outgoing.admitting(gate)(reading(100_000), itself);
    await until(() => total.waitingCount === 1, 'it waits');
    taken();
    expect(await read).toBe(16 * 1024);
    expect(total.waitingCount).toBe(0);
  });

  test('does not wait for what its client took before it began to wait', async () => {
    const { total, outgoing, gate } = rig();
    const taken = outgoing.add(10);
    total.charge(2 * LIMIT);
    const read = outgoing.admitting(gate)(reading(100), itself);
    // Between its look at the budget and the wait.
    await Promise.resolve();
    taken();
    expect(await read).toBe(100);
  });

  test('waits for room for what messages are made of, and takes none of theirs', async () => {
    const { total, outgoing, gate } = rig();
    const sources = new ByteBudget(LIMIT);
    const read = outgoing.admitting(gate, sources);
    await read(reading(2 * LIMIT), itself);
    const letGo = outgoing.keepLastRead(sources);
    expect([total.usedBytes, sources.usedBytes]).toEqual([0, 2 * LIMIT]);
    expect(await outgoing.admitting(gate)(reading(100_000), itself)).toBe(100_000);
    const next = read(reading(50_000), itself);
    await until(() => sources.waitingCount === 1, 'it waits');
    letGo();
    letGo();
    expect(sources.usedBytes).toBe(0);
    expect(await next).toBe(50_000);
  });
});

test('what is left when a call is over is taken off, once', () => {
  const { total, outgoing } = rig();
  const taken = outgoing.add(10);
  outgoing.add(20);
  taken();
  taken();
  expect(total.usedBytes).toBe(20);
  outgoing.close();
  outgoing.close();
  outgoing.add(5)();
  expect(total.usedBytes).toBe(0);
});

test('what is kept when a call is over is taken off, once', async () => {
  const { outgoing, gate } = rig();
  const sources = new ByteBudget(LIMIT);
  await outgoing.admitting(gate)(reading(100), itself);
  const letGo = outgoing.keepLastRead(sources);
  outgoing.close();
  letGo();
  expect(sources.usedBytes).toBe(0);
});

test('a read that gives nothing is not kept', async () => {
  const { outgoing, gate } = rig();
  await outgoing.admitting(gate)(reading(0), itself);
  expect(outgoing.heldBytes).toBe(0);
  expect(outgoing.nextBytes).toBe(0);
});
