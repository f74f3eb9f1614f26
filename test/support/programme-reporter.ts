/** Prints, at the end of a run, what the tests of chance and faults have tried and found, and how to repeat a failure. */
import type { Reporter, TestCase, TestModule, TestSuite } from 'vitest/node';
import type { ProgrammeAccount } from './programme.js';
import { repeatCommand } from './repeat.js';

export default class ProgrammeReporter implements Reporter {
  readonly #commands: string[] = [];

  /** At once, because a long form may not come to its end. */
  onTestCaseResult(test: TestCase): void {
    if (test.result().state !== 'failed') return;
    const command = commandOf(test);
    this.#commands.push(command);
    console.log(`repeat with: ${command}`);
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    printTable(modules.flatMap((module) => [...module.children.allTests()].flatMap(rowOf)));
    for (const command of this.#commands) console.log(`repeat with: ${command}`);
  }
}

function printTable(rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) return;
  const header = ['test', 'tried', 'found', 'seconds', 'seed'];
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const lines = [header, ...rows].map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  '));
  console.log(`\n${lines.map((line) => `  ${line.trimEnd()}`).join('\n')}\n`);
}

function commandOf(test: TestCase): string {
  const { programme, propertySeed } = test.meta();
  // Between the names of groups Vitest shows an arrow, but its filter takes a space.
  const fullName = namesOf(test).join(' ');
  return repeatCommand({ file: test.module.moduleId, fullName, seed: programme?.seed ?? propertySeed });
}

/** Of the groups that a test is in, the outermost first, and its own. */
function namesOf(test: TestCase | TestSuite): string[] {
  const { parent } = test;
  return parent.type === 'suite' ? [...namesOf(parent), test.name] : [test.name];
}

function rowOf(test: TestCase): string[][] {
  const { programme } = test.meta();
  const { state } = test.result();
  if (programme === undefined || state === 'skipped' || state === 'pending') return [];
  const found = state === 'passed' ? 'nothing' : 'A DEFECT';
  const seconds = ((test.diagnostic()?.duration ?? 0) / 1000).toFixed(1);
  return [
    [
      `${test.module.relativeModuleId}: ${namesOf(test).join(', ')}`,
      triedText(programme),
      found,
      seconds,
      String(programme.seed),
    ],
  ];
}

function triedText({ tried }: ProgrammeAccount): string {
  return tried.map(({ what, count }) => `${count.toLocaleString('en')} ${what}`).join(', ');
}
