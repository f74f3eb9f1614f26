/** Prints, at the end of a run, what the tests of chance and faults have tried and found. */
import type { Reporter, TestCase, TestModule } from 'vitest/node';
import type { ProgrammeAccount } from './programme.js';

export default class ProgrammeReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const rows = modules.flatMap((module) => [...module.children.allTests()].flatMap(rowOf));
    if (rows.length === 0) return;
    const header = ['test', 'tried', 'found', 'seconds', 'seed'];
    const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
    const lines = [header, ...rows].map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join('  '));
    console.log(`\n${lines.map((line) => `  ${line.trimEnd()}`).join('\n')}\n`);
  }
}

function rowOf(test: TestCase): string[][] {
  const { programme } = test.meta();
  const { state } = test.result();
  if (programme === undefined || state === 'skipped' || state === 'pending') return [];
  const found = state === 'passed' ? 'nothing' : 'A DEFECT';
  const seconds = ((test.diagnostic()?.duration ?? 0) / 1000).toFixed(1);
  return [
    [`${test.module.relativeModuleId}: ${test.fullName}`, triedText(programme), found, seconds, String(programme.seed)],
  ];
}

function triedText({ tried }: ProgrammeAccount): string {
  return tried.map(({ what, count }) => `${count.toLocaleString('en')} ${what}`).join(', ');
}
