/** The checker against a model: it finds nothing where there is nothing, and each fault that is put in. */
import { expect, test } from 'vitest';
import { inForm, Programme } from '../support/programme.js';
import { checkHistory, expectNoViolations } from './checker.js';
import { FAULTS, MutableHistory } from './faults.js';
import { MODEL_OPTIONS, ModelClients } from './model.js';
import { Script } from './script.js';
import type { ViolationKind } from './violations.js';

const HISTORIES = inForm({ short: 40, long: 3000 });
const STEPS = 300;
const LARGE_RECORDS = 500_000;
/** Records in a poll of the large history. */
const POLLED = 100;
/** Every fault finds its place in most histories. */
const LEAST_FAULTS = HISTORIES / 4;

test(
  `${HISTORIES} good histories are passed, and one fault of each kind in each is found with its evidence`,
  (context) => {
    const programme = new Programme(context);
    const injected = new Map<string, number>();
    for (let count = 0; count < HISTORIES; count++) {
      const history = new ModelClients(programme.random).run(STEPS);
      expectNoViolations(history, MODEL_OPTIONS);
      programme.tried('histories');
      for (const [kind, inject] of Object.entries(FAULTS)) {
        const spoilt = new MutableHistory(history.events, programme.random);
        const index = inject(spoilt);
        if (index === undefined) continue;
        expectFound(spoilt, kind as ViolationKind, index);
        programme.tried('faults');
        injected.set(kind, (injected.get(kind) ?? 0) + 1);
      }
    }
    for (const kind of Object.keys(FAULTS)) expect(injected.get(kind), kind).toBeGreaterThan(LEAST_FAULTS);
  },
  inForm({ short: 30_000, long: 600_000 }),
);

function expectFound({ events }: MutableHistory, kind: ViolationKind, index: number): void {
  const violations = checkHistory(events, MODEL_OPTIONS);
  const found = violations.some(
    (violation) => violation.kind === kind && violation.evidence.some((event) => event.index === index),
  );
  if (!found) {
    const summary = violations.map((violation) => `${violation.kind}: ${violation.message}`).join('\n');
    throw new Error(`no ${kind} that shows event ${index} (${JSON.stringify(events[index])}), only\n${summary}`);
  }
}

test('a million events are checked in time proportional to them: squared, it would take days', () => {
  const script = new Script();
  script.reads('follower', 0);
  for (let offset = 0; offset < LARGE_RECORDS; offset += POLLED) {
    const records = Array.from({ length: POLLED }, (_, i) => [offset + i, `v${offset + i}`] as const);
    for (const [at, value] of records) script.acked(at, value);
    script.sees('follower', ...records);
    // Those who come from the start find all gone but the newest.
    script.trims(offset);
    script.reads(`late-${offset}`, 0);
    script.sees(`late-${offset}`, records[0]!);
  }
  expect(script.events.length).toBeGreaterThan(1_000_000);
  expectNoViolations(script);
});
