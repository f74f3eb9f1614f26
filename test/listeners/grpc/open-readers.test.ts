import { expect, test } from 'vitest';
import { ByteBudget } from '../../../src/core/byte-budget.js';
import { silentLogger } from '../../../src/core/logger.js';
import { OpenReaders, STALLED_MS } from '../../../src/listeners/grpc/open-readers.js';
import { OutgoingBytes } from '../../../src/listeners/grpc/outgoing-bytes.js';
import { ManualClock } from '../../support/manual-clock.js';

const LIMIT = 1_000_000;
const CHECK_MS = 250;
const MESSAGE_BYTES = LIMIT / 8;

class Rig {
  readonly clock = new ManualClock(0);
  readonly total = new ByteBudget(LIMIT);
  readonly sources = new ByteBudget(LIMIT);
  readonly readers = new OpenReaders({ budgets: [this.total, this.sources], clock: this.clock, logger: silentLogger });
  readonly cutOff: string[] = [];

  reader(name: string): OutgoingBytes {
    const outgoing = new OutgoingBytes(new ByteBudget(LIMIT, this.total));
    this.readers.add(outgoing, () => this.cutOff.push(name));
    return outgoing;
  }
}

function hold(outgoing: OutgoingBytes, bytes: number): void {
  for (let held = 0; held < bytes; held += MESSAGE_BYTES) outgoing.add(MESSAGE_BYTES);
}

test('a reader that takes nothing is cut off while others wait, one that takes is not', () => {
  const rig = new Rig();
  hold(rig.reader('stalled'), LIMIT);
  const slow = rig.reader('slow');
  const taken = Array.from({ length: 100 }, () => slow.add(100));
  const stopWaiting = rig.readers.waitFor(rig.total);
  for (let ms = 0; ms < STALLED_MS; ms += 500) {
    expect(rig.cutOff).toEqual([]);
    rig.clock.advance(500);
    taken.pop()?.();
  }
  rig.clock.advance(CHECK_MS);
  expect(rig.cutOff).toEqual(['stalled']);
  stopWaiting();
});

test('nobody is cut off while nobody waits', () => {
  const rig = new Rig();
  hold(rig.reader('paused'), LIMIT);
  rig.clock.advance(10 * STALLED_MS);
  rig.readers.waitFor(rig.total)();
  rig.clock.advance(10 * STALLED_MS);
  expect(rig.cutOff).toEqual([]);
  expect(rig.clock.timerCount).toBe(0);
});

test('of those who take nothing, no more are cut off than it takes to make room, who holds most first', () => {
  const rig = new Rig();
  hold(rig.reader('small'), LIMIT / 4);
  hold(rig.reader('large'), LIMIT);
  rig.readers.waitFor(rig.total);
  rig.clock.advance(10 * STALLED_MS);
  expect(rig.cutOff).toEqual(['large']);
  expect(rig.total.usedBytes).toBe(LIMIT / 4);
});

test('a message of 1 MiB may take longer', () => {
  const rig = new Rig();
  rig.reader('slow').add(1024 * 1024);
  rig.readers.waitFor(rig.total);
  rig.clock.advance(7_000);
  expect(rig.cutOff).toEqual([]);
  rig.clock.advance(3_000);
  expect(rig.cutOff).toEqual(['slow']);
});

test('while the process itself stands still nobody is cut off', () => {
  const rig = new Rig();
  hold(rig.reader('honest'), LIMIT);
  rig.readers.waitFor(rig.total);
  // A timer that is late fires once, and only then is anything received.
  for (let stop = 0; stop < 5; stop++) {
    const monotonic = rig.clock.monotonic() + 10 * STALLED_MS * (stop + 1);
    rig.clock.monotonic = (): number => monotonic;
    rig.clock.advance(CHECK_MS);
  }
  expect(rig.cutOff).toEqual([]);
});

test('those who wait in turns for the little that comes free count as waiting', () => {
  const rig = new Rig();
  hold(rig.reader('stalled'), LIMIT);
  for (let ms = 0; ms < STALLED_MS + 2 * CHECK_MS; ms += 50) {
    const stopWaiting = rig.readers.waitFor(rig.total);
    rig.clock.advance(25);
    stopWaiting();
    rig.clock.advance(25);
  }
  expect(rig.cutOff).toEqual(['stalled']);
});

test('the timer goes with the last reader', () => {
  const rig = new Rig();
  const outgoing = rig.reader('only');
  hold(outgoing, LIMIT);
  rig.readers.waitFor(rig.total)();
  expect(rig.clock.timerCount).toBe(1);
  rig.readers.remove(outgoing);
  expect(rig.clock.timerCount).toBe(0);
});

test('what messages are made of is let go of as well', () => {
  const rig = new Rig();
  const outgoing = rig.reader('stalled');
  hold(outgoing, LIMIT / 2);
  outgoing.keepLastRead(rig.sources);
  rig.sources.charge(LIMIT);
  rig.readers.waitFor(rig.sources);
  rig.clock.advance(2 * STALLED_MS);
  expect(rig.cutOff).toEqual(['stalled']);
});
