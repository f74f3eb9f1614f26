import { describe, expect, test } from 'vitest';
import { LogError } from '../../../src/core/errors.js';
import { MessageIdBudget } from '../../../src/partition/message-ids/message-id-budget.js';
import { decodeSection, encodeSection } from '../../../src/partition/message-ids/message-id-section.js';
import { MessageIds, type RememberedId } from '../../../src/partition/message-ids/message-ids.js';
import { fc } from '../../support/properties.js';

const WINDOW_MS = 1000;

function idsWith(budget: MessageIdBudget, windowMs: number = WINDOW_MS): MessageIds {
  return new MessageIds({ topic: 't', partition: 0, budget, windowMs });
}

function refusalOf(work: () => unknown): LogError {
  try {
    work();
  } catch (error) {
    if (error instanceof LogError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

/** The section as its user makes it. */
function sectionOf(entries: readonly RememberedId[], nowMs: number, maxBytes?: number): Buffer {
  const encoding = encodeSection(entries, nowMs, maxBytes);
  for (;;) {
    const step = encoding.next();
    if (step.done) return step.value;
  }
}

describe('message ids', () => {
  test('of records that are there already give the offsets of those', () => {
    const ids = idsWith(new MessageIdBudget(100));
    expect(ids.admit(['a', 'b'], 10, 0)).toEqual({ offsets: [10, 11], fresh: [0, 1] });
    expect(ids.admit(['b', 'c', 'a', 'd'], 12, 500)).toEqual({ offsets: [11, 12, 10, 13], fresh: [1, 3] });
    expect(ids.admit(['a', 'd'], 14, 600)).toEqual({ offsets: [10, 13], fresh: [] });
  });

  test('that come twice in one request name the first record', () => {
    const ids = idsWith(new MessageIdBudget(100));
    expect(ids.admit(['a', 'b', 'a', 'a'], 5, 0)).toEqual({ offsets: [5, 6, 5, 5], fresh: [0, 1] });
  });

  test('are remembered for the window and no longer', () => {
    const ids = idsWith(new MessageIdBudget(100));
    ids.admit(['a'], 0, 0);
    expect(ids.admit(['a'], 1, WINDOW_MS - 1).fresh).toEqual([]);
    expect(ids.admit(['a'], 1, WINDOW_MS)).toEqual({ offsets: [1], fresh: [0] });
    // The window of the second begins with the second.
    expect(ids.admit(['a'], 2, 2 * WINDOW_MS - 1).offsets).toEqual([1]);
  });

  test('follow a changed window', () => {
    const ids = idsWith(new MessageIdBudget(100));
    ids.admit(['a'], 0, 0);
    ids.configure(2 * WINDOW_MS);
    expect(ids.admit(['a'], 1, WINDOW_MS).fresh).toEqual([]);
    ids.configure(10);
    expect(ids.admit(['a'], 1, WINDOW_MS + 1).fresh).toEqual([0]);
  });

  test('of an append that failed are forgotten, and only these', () => {
    const budget = new MessageIdBudget(100);
    const ids = idsWith(budget);
    ids.admit(['a'], 0, 0);
    const savepoint = ids.savepoint();
    ids.admit(['b'], 1, 1);
    ids.admit(['b', 'c'], 2, 1);
    ids.undoTo(savepoint);
    expect(budget.used).toBe(1);
    expect(ids.admit(['a', 'b', 'c'], 1, 2)).toEqual({ offsets: [0, 1, 2], fresh: [1, 2] });
  });

  test('of appends that fail again and again take no room', () => {
    const budget = new MessageIdBudget(100);
    const ids = idsWith(budget);
    for (let i = 0; i < 10_000; i++) {
      const savepoint = ids.savepoint();
      ids.admit([`a${i}`, `b${i}`], 0, i / 100);
      ids.undoTo(savepoint);
    }
    expect([budget.used, ids.count]).toEqual([0, 0]);
  });

  test('are the same ids whatever characters they are of', () => {
    const ids = idsWith(new MessageIdBudget(100));
    ids.admit(['__proto__', 'ä', 'a\u0308', '🦩'], 0, 0);
    expect(ids.admit(['🦩', 'a\u0308', 'ä', '__proto__', 'constructor'], 4, 0).offsets).toEqual([3, 2, 1, 0, 4]);
  });
});

describe('the room for message ids', () => {
  test('is shared by partitions; beyond it records are refused until ids are forgotten', () => {
    const budget = new MessageIdBudget(4);
    const [one, two] = [idsWith(budget), idsWith(budget)];
    one.admit(['a', 'b'], 0, 0);
    two.admit(['a', 'b'], 0, 300);
    const refusal = refusalOf(() => two.admit(['b', 'c'], 2, 400));
    expect(refusal).toMatchObject({ reason: 'RESOURCE_LIMIT', retryable: true, retryAfterMs: 600 });
    expect(refusal.metadata).toEqual({ topic: 't', partition: '0', message_ids_max: '4' });
    // What is there already takes no room.
    expect(two.admit(['a', 'b'], 2, 400).fresh).toEqual([]);
    // The time that was named is right, although the other partition does nothing.
    expect(two.admit(['b', 'c'], 2, 1000)).toEqual({ offsets: [1, 2], fresh: [1] });
    expect([budget.used, one.count]).toEqual([3, 0]);
  });

  test('is given back by a partition with a shorter window that nobody sends to', () => {
    const budget = new MessageIdBudget(2);
    const [long, short] = [idsWith(budget, 100_000), idsWith(budget, 1000)];
    long.admit(['a'], 0, 0);
    refusalOf(() => long.admit(['b', 'c'], 1, 0));
    short.admit(['x'], 0, 1);
    expect(refusalOf(() => long.admit(['b'], 1, 2)).retryAfterMs).toBe(999);
    expect(long.admit(['b'], 1, 1001).fresh).toEqual([0]);
  });

  test('is looked for again when a window becomes shorter', () => {
    const budget = new MessageIdBudget(1);
    const [one, two] = [idsWith(budget), idsWith(budget)];
    one.admit(['a'], 0, 0);
    refusalOf(() => two.admit(['b'], 0, 200));
    one.configure(100);
    expect(two.admit(['b'], 0, 200).fresh).toEqual([0]);
  });

  test('is taken by long ids more than once, and refused for good to more than there ever is', () => {
    const budget = new MessageIdBudget(4);
    const ids = idsWith(budget);
    ids.admit(['x'.repeat(99), 'x'.repeat(100)], 0, 0);
    expect(budget.used).toBe(3);
    const refusal = refusalOf(() => ids.admit(['y'.repeat(250), 'z'.repeat(256)], 2, 5000));
    expect(refusal).toMatchObject({ reason: 'INVALID_REQUEST', retryable: false });
  });

  test('is given back when a partition closes', () => {
    const budget = new MessageIdBudget(3);
    const ids = idsWith(budget);
    ids.admit(['a', 'b', 'c'], 0, 0);
    ids.clear();
    expect([budget.used, ids.count]).toEqual([0, 0]);
    expect(idsWith(budget).admit(['a', 'b', 'c'], 0, 0).fresh).toHaveLength(3);
  });

  test('is exceeded by a start at most once over: what came first is forgotten', () => {
    const budget = new MessageIdBudget(3);
    const ids = idsWith(budget);
    for (let i = 0; i < 10; i++) ids.restore({ id: `i${i}`, offset: i, cameMs: 0 });
    expect(budget.used).toBe(6);
    expect(ids.admit(['i4', 'i9'], 10, WINDOW_MS - 1).fresh).toEqual([]);
    expect(refusalOf(() => ids.admit(['i3'], 10, WINDOW_MS - 1)).reason).toBe('RESOURCE_LIMIT');
    expect(ids.admit(['i3'], 10, WINDOW_MS).fresh).toEqual([0]);
  });

  test('holds up against any sequence of requests', () => {
    const request = fc.record({
      partition: fc.nat({ max: 2 }),
      ids: fc.array(fc.nat({ max: 30 }), { minLength: 1, maxLength: 6 }),
      waitMs: fc.nat({ max: 400 }),
    });
    fc.assert(
      fc.property(fc.array(request, { maxLength: 60 }), (requests) => {
        const budget = new MessageIdBudget(12);
        const partitions = [300, 1000, 2000].map((windowMs) => ({ ids: idsWith(budget, windowMs), end: 0, windowMs }));
        const live = new Map<string, number>();
        let nowMs = 0;
        for (const { partition, ids, waitMs } of requests) {
          nowMs += waitMs;
          const { ids: target, end, windowMs } = partitions[partition]!;
          const isLive = (key: string): boolean => (live.get(key) ?? 0) > nowMs;
          const keys = [...new Set(ids)].map((id) => `${partition}/${id}`);
          const added = keys.filter((key) => !isLive(key));
          const send = (): number[] => [...target.admit(ids.map(String), end, nowMs).fresh];
          const used = [...live.keys()].filter(isLive).length;
          if (used + added.length > 12) {
            expect(refusalOf(send).reason).toBe('RESOURCE_LIMIT');
          } else {
            const refused = trySend(send);
            // Ids leave at the latest a tenth of a second after their window, when room is needed.
            if (refused !== undefined) {
              expect(refused.retryAfterMs).toBeLessThanOrEqual(100);
              continue;
            }
            partitions[partition]!.end += added.length;
            for (const key of added) live.set(key, nowMs + windowMs);
          }
          expect(budget.used).toBeLessThanOrEqual(12);
          expect(budget.used).toBe(partitions.reduce((sum, { ids: { count } }) => sum + count, 0));
        }
      }),
    );
  });
});

function trySend(send: () => unknown): LogError | undefined {
  try {
    send();
    return undefined;
  } catch (error) {
    if (error instanceof LogError) return error;
    throw error;
  }
}

describe('after any history', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ ids: fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 8 }) }) },
    { weight: 2, arbitrary: fc.record({ failing: fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 8 }) }) },
    { weight: 3, arbitrary: fc.record({ waitMs: fc.nat({ max: 700 }) }) },
    { weight: 1, arbitrary: fc.constant({ restart: true }) },
  );

  test('an id is remembered if and only if it came within the window', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const budget = new MessageIdBudget(1_000_000);
        let ids = idsWith(budget);
        const came = new Map<string, { offset: number; cameMs: number }>();
        let nowMs = 0;
        let end = 0;
        const expected = (asked: readonly string[], keep: boolean): number[] => {
          const known = new Map(keep ? [] : [...came]);
          const table = keep ? came : known;
          let next = end;
          const offsets = asked.map((id) => {
            const entry = table.get(id);
            if (entry !== undefined && entry.cameMs + WINDOW_MS > nowMs) return entry.offset;
            table.set(id, { offset: next, cameMs: nowMs });
            return next++;
          });
          if (keep) end = next;
          return offsets;
        };
        for (const action of steps) {
          if ('waitMs' in action) nowMs += action.waitMs;
          if ('ids' in action) {
            const asked = action.ids.map(String);
            const before = end;
            expect([...ids.admit(asked, before, nowMs).offsets]).toEqual(expected(asked, true));
          }
          if ('failing' in action) {
            const asked = action.failing.map(String);
            const savepoint = ids.savepoint();
            expect([...ids.admit(asked, end, nowMs).offsets]).toEqual(expected(asked, false));
            ids.undoTo(savepoint);
          }
          if ('restart' in action) {
            const section = sectionOf(ids.entries(nowMs), nowMs);
            ids.clear();
            expect(budget.used).toBe(0);
            ids = idsWith(budget);
            // Another process, whose monotonic clock began elsewhere, would do the same from its own time on.
            for (const entry of decodeSection(section, nowMs)) ids.restore(entry);
          }
        }
      }),
    );
  });

  test('what is kept has nothing whose window is over', () => {
    const ids = idsWith(new MessageIdBudget(100));
    ids.admit(['old'], 0, 0);
    ids.admit(['a', 'b'], 1, WINDOW_MS / 2);
    ids.admit(['c'], 3, WINDOW_MS - 1);
    expect(ids.entries(WINDOW_MS).map(({ id }) => id)).toEqual(['a', 'b', 'c']);
  });
});

describe('message ids in a snapshot', () => {
  const entries: RememberedId[] = Array.from({ length: 3000 }, (_, i) => ({
    id: `id-${i}-ä🦩`,
    offset: i * 1_000_003 * 1_000_000,
    cameMs: 7 * i + 0.25,
  }));

  test('come back with their offsets and ages, at another time of another clock', () => {
    const found = [...decodeSection(sectionOf(entries, 30_000), 1000)];
    expect(found.map(({ id, offset }) => ({ id, offset }))).toEqual(entries.map(({ id, offset }) => ({ id, offset })));
    // Never older than it was.
    expect(found[0]?.cameMs).toBe(1000 - 29_999);
    expect(found.at(-1)?.cameMs).toBe(1000 - (30_000 - 20_994));
  });

  test('that do not fit lose the oldest', () => {
    const found = [...decodeSection(sectionOf(entries, 30_000, 60_000), 0)];
    expect(found.length).toBeGreaterThan(1000);
    expect(found).toEqual([...decodeSection(sectionOf(entries, 30_000), 0)].slice(-found.length));
  });

  test('of none are nothing', () => {
    expect([...decodeSection(sectionOf([], 0), 0)]).toEqual([]);
  });

  test('are refused when cut short anywhere inside an entry, or of another version', () => {
    const section = sectionOf(entries.slice(0, 2), 30_000);
    const whole = new Set([1, section.length]);
    for (let length = 2; length < section.length; length++) {
      const cut = section.subarray(0, length);
      const outcome = trySend(() => [...decodeSection(cut, 0)]);
      if (outcome === undefined) whole.add(length);
      else expect(outcome.reason).toBe('CORRUPT_LOG');
    }
    expect(whole.size).toBe(3);
    expect(refusalOf(() => [...decodeSection(Buffer.from([9, 0]), 0)]).reason).toBe('UNSUPPORTED_FORMAT');
  });
});
