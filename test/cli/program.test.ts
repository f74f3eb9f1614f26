/** The command line is judged before anything is done. */
import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import type { Ending } from '../../src/cli/failure.js';
import { execute } from '../../src/cli/main.js';
import { Output } from '../../src/cli/output.js';

function judge(args: readonly string[]): Promise<Ending> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  return execute(args, { output: new Output(nowhere), environment: {} });
}

test.each([
  [['frobnicate'], "unknown command 'frobnicate'"],
  [['topic', 'creat', 'x'], "unknown command 'creat'"],
  [['topic', 'create'], "missing required argument 'name'"],
  [['topic', 'create', 'x', 'y'], 'too many arguments'],
  [['topic', 'create', 'x', '--partitions', '0'], 'at least 1'],
  [['topic', 'create', 'x', '--config', 'oops'], 'key=value'],
  [['topic', 'list', '--broker', 'nowhere'], 'HOST:PORT'],
  [['topic', 'alter', 'x'], 'nothing to alter'],
  [['topic', 'alter', 'x', '--partitions', '0'], 'at least 1'],
  [['topic', 'alter', 'x', '--config', 'oops'], 'key=value, or -key'],
  [['topic', 'alter', 'x', '--config', '-flush.ms=1'], 'key=value, or -key'],
  [['topic', 'alter', 'x', '--config', 'flush.ms=1', '--config', '-flush.ms'], 'flush.ms twice'],
  [['topic', 'delete-records', 'x', '--before-offset', '1'], '--partition'],
  [['topic', 'delete-records', 'x', '--partition', '0'], 'exactly one of --before-offset and --before-time'],
  [
    ['topic', 'delete-records', 'x', '--partition', '0', '--before-offset', '1', '--before-time', '2026-01-01'],
    'exactly one of --before-offset and --before-time',
  ],
  [['topic', 'delete-records', 'x', '--partition', '0', '--before-offset', '-1'], 'at least 0'],
  [['topic', 'delete-records', 'x', '--partition', '0', '--before-time', 'yesterday'], '2026-01-31T12:00:00Z'],
  [['produce'], "missing required argument 'topic'"],
  [['produce', 'x', '--acks', 'all'], 'none, written, durable'],
  [['produce', 'x', '--compression', 'rar'], 'none, gzip, snappy, lz4, zstd'],
  [['produce', 'x', '--format', 'json', '--key-separator', ':'], '--key-separator'],
  [['consume', 'x', '--from', 'yesterday'], 'earliest, latest'],
  [['consume', 'x', '--max', '-1'], 'at least 1'],
  [['consume', 'x', '--colour'], "unknown option '--colour'"],
  [['serve', '--data-directory', 'x'], '--data-dir'],
  [['version', '--loud'], "unknown option '--loud'"],
])('%j is wrong usage, and the line says what would be right', async (args, part) => {
  const { exitCode, line } = await judge(args);
  expect(line).toContain(part);
  expect(line).toMatch(/^tidelog: .*\.$/);
  expect(exitCode).toBe(2);
});
