/** The report of `tidelog log verify`. */
import { join, resolve } from 'node:path';
import { LogError } from '../core/errors.js';
import { CLEAN_SHUTDOWN_NAME } from '../storage/local/data-dir.js';
import { nodeFileSystem } from '../storage/local/fs.js';
import { METADATA_LOG_NAME } from '../storage/local/metadata-store.js';
import { type PartitionReport, type Problem, verifyDataDirectory } from '../storage/local/verify.js';
import { count, type Output } from './output.js';

interface Totals {
  partitions: number;
  segments: number;
  batches: number;
  records: number;
  bytes: number;
  problems: number;
  tornTails: number;
  indexProblems: number;
  snapshotProblems: number;
}

/**
 * Checks a data directory and prints each problem and a summary.
 * @throws LogError CORRUPT_LOG after everything was printed, if records are corrupt or missing; DATA_DIR_UNUSABLE,
 *   UNSUPPORTED_FORMAT, STORAGE_ERROR
 */
export async function verifyDataDir(dataDir: string, output: Output): Promise<void> {
  const path = resolve(dataDir);
  const totals: Totals = {
    partitions: 0,
    segments: 0,
    batches: 0,
    records: 0,
    bytes: 0,
    problems: 0,
    tornTails: 0,
    indexProblems: 0,
    snapshotProblems: 0,
  };
  let first: Problem | undefined;
  for await (const report of verifyDataDirectory(path)) {
    add(totals, report);
    printReport(report, output);
    first ??= report.problems[0];
    if (output.full) await output.flush();
  }
  printSummary(dataDir, totals, output);
  if (totals.problems === 0) {
    if (!(await wasStoppedCleanly(path))) {
      output.line(
        'Note: a broker is running on this directory, or was not stopped cleanly; then its next start recovers it.',
      );
    }
    return;
  }
  const where = first === undefined ? '' : ` The first: ${first.file}, byte ${first.position}, offset ${first.offset}.`;
  throw new LogError(
    'CORRUPT_LOG',
    `${count(totals.problems, 'problem')} in ${dataDir}.${where} The broker serves what is intact and refuses the rest: ` +
      'restore the files from a backup, or read around the lost offsets.',
    { metadata: { data_dir: dataDir, problems: totals.problems } },
  );
}

async function wasStoppedCleanly(path: string): Promise<boolean> {
  return (await nodeFileSystem.stat(join(path, CLEAN_SHUTDOWN_NAME))) !== undefined;
}

function add(totals: Totals, report: PartitionReport): void {
  totals.problems += report.problemCount;
  totals.tornTails += report.tornTail === undefined ? 0 : 1;
  totals.indexProblems += report.indexProblems.length;
  totals.snapshotProblems += report.snapshotProblems.length;
  // The journal of the metadata is checked too, but is no partition.
  if (report.name === METADATA_LOG_NAME) return;
  totals.partitions++;
  totals.segments += report.segmentCount;
  totals.batches += report.batchCount;
  totals.records += report.recordCount;
  totals.bytes += report.sizeInBytes;
}

function printReport(report: PartitionReport, output: Output): void {
  for (const problem of report.problems) output.line(problemLine('corrupt', problem));
  const untold = report.problemCount - report.problems.length;
  if (untold > 0) output.line(`corrupt: ${count(untold, 'further problem')} in ${report.name}`);
  if (report.tornTail !== undefined) {
    const { file, position, bytes, what } = report.tornTail;
    output.line(`torn tail: ${file}, byte ${position}, ${count(bytes, 'byte')}: ${what} (the next start cuts it off)`);
  }
  for (const problem of report.indexProblems) output.line(`${problemLine('index', problem)} (will be rebuilt)`);
  for (const problem of report.snapshotProblems) output.line(`${problemLine('snapshot', problem)} (will be rebuilt)`);
}

function problemLine(kind: string, { file, position, offset, what }: Problem): string {
  return `${kind}: ${file}, byte ${position}, offset ${offset}: ${what}`;
}

function printSummary(dataDir: string, totals: Totals, output: Output): void {
  const held = [
    count(totals.segments, 'segment'),
    count(totals.batches, 'batch', 'batches'),
    count(totals.records, 'record'),
    count(totals.bytes, 'byte'),
  ].join(', ');
  output.line(`Checked ${count(totals.partitions, 'partition')} in ${dataDir}: ${held}.`);
  const found = [
    totals.problems === 0 ? 'No corruption' : `${count(totals.problems, 'problem')} found`,
    ...(totals.tornTails === 0 ? [] : [count(totals.tornTails, 'torn tail')]),
    ...(totals.indexProblems === 0 ? [] : [`${count(totals.indexProblems, 'index', 'indexes')} to rebuild`]),
    ...(totals.snapshotProblems === 0 ? [] : [`${count(totals.snapshotProblems, 'snapshot')} to rebuild`]),
  ].join(', ');
  output.line(`${found}.`);
}
