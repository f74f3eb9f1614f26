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
  [['group', 'describe'], "missing required argument 'group'"],
  [['group', 'reset-offsets', 'g', '--to', 'latest'], '--topic'],
  [['group', 'reset-offsets', 'g', '--topic', 't'], 'exactly one of --to and --shift-by'],
  [
    ['group', 'reset-offsets', 'g', '--topic', 't', '--to', 'latest', '--shift-by', '1'],
    'exactly one of --to and --shift-by',
  ],
  [['group', 'reset-offsets', 'g', '--topic', 't', '--to', 'yesterday'], 'earliest, latest, current'],
  [['group', 'reset-offsets', 'g', '--topic', 't', '--to', '-90'], '-90s, -15m'],
  [['group', 'reset-offsets', 'g', '--topic', 't', '--shift-by', '1.5'], 'whole number of offsets'],
  [['group', 'reset-offsets', 'g', '--topic', 't:x', '--to', 'latest'], 'orders:0,3'],
  [['group', 'reset-offsets', 'g', '--topic', 't:1', '--topic', 't:2', '--to', 'latest'], 'names t twice'],
  [['produce'], "missing required argument 'topic'"],
  [['produce', 'x', '--acks', 'all'], 'none, written, durable'],
  [['produce', 'x', '--compression', 'rar'], 'none, gzip, snappy, lz4, zstd'],
  [['produce', 'x', '--format', 'json', '--key-separator', ':'], '--key-separator'],
  [['consume', 'x', '--from', 'yesterday'], 'earliest, latest'],
  [['consume', 'x', '--instance-id', 'i'], '--instance-id goes with --group'],
  [['consume', 'x', '--group', 'g', '--partition', '0'], '--partition does not go with --group'],
  [['consume', 'x', '--group', 'g', '--to', 'end'], '--to does not go with --group'],
  [['consume', 'x', '--group', 'g', '--from', '7'], 'tidelog group reset-offsets'],
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
