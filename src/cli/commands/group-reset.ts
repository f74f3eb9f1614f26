/** `tidelog group reset-offsets`: shows what would change, asks, and moves the committed offsets, of a live group too. */
import { type Command, Option } from 'commander';
import type { GroupOffsetReset, PartitionOffsetReset, ResetTarget } from '../../client/admin-groups.js';
import type { Client } from '../../client/client.js';
import { systemClock } from '../../core/clock.js';
import { LogError, toLogError } from '../../core/errors.js';
import { repeated } from '../arguments.js';
import { UsageError } from '../failure.js';
import { count, type Output } from '../output.js';
import type { CommandContext } from '../program.js';
import { resetPosition, shift, type TimeAgo, type TopicSpec, topicSpec } from '../reset-arguments.js';
import { withClient } from '../with-client.js';
import { type GroupOptions, groupCommand, NOTHING } from './group-common.js';

interface ResetOptions extends GroupOptions {
  readonly topic: readonly TopicSpec[];
  readonly to?: ResetTarget | TimeAgo;
  readonly shiftBy?: number;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
}

const HELP = `
Positions (--to):
  earliest         the log start offset
  latest           the high watermark
  OFFSET           this offset; it must lie within each partition
  ISO-TIME         the first record at or after this time, such as 2026-01-31T12:00:00Z (UTC where no zone is given)
  -DURATION        the first record at or after that long before now: -90s, -15m, -1h30m, -7d, or -P1DT2H of ISO 8601
  current          where the group is: nothing is moved, but its members begin there again
A time later than every record means the high watermark. --shift-by and current count from the log start offset where
nothing was committed; --shift-by goes no further than the partition does.

The group may have members. They drop what they hold of these partitions without committing it, fetch the new offsets and
go on; other partitions are not disturbed. A group that does not exist is created.

Without --yes the command shows what would change and asks. Without a terminal, and with --json, it does not ask: it ends
with exit code 2 unless --yes or --dry-run is given. All partitions of a topic are moved, or none.

Examples:
  tidelog group reset-offsets billing --topic orders --to earliest --dry-run
  tidelog group reset-offsets billing --topic orders:0,3 --topic payments --to -1h30m
  tidelog group reset-offsets billing --topic orders --to 2026-01-31T12:00:00Z --yes
  tidelog group reset-offsets billing --topic orders --shift-by -100 --yes`;

export function configureReset(parent: Command, context: CommandContext): void {
  groupCommand(parent, 'reset-offsets', 'Move the committed offsets of a group, also while it has members.')
    .requiredOption('--topic <topic>', 'A topic, or partitions of it (T:0,3); repeat for more.', repeated(topicSpec))
    .addOption(new Option('--to <position>', 'Where to: see below.').argParser(resetPosition))
    .option('--shift-by <offsets>', 'Forward by so many offsets, or back: -100.', shift)
    .option('--dry-run', 'Show what would change, and change nothing.')
    .option('--yes', 'Do it without asking.')
    .addHelpText('after', HELP)
    .action((group: string, options: ResetOptions) => resetOffsets(group, options, context));
}

async function resetOffsets(group: string, options: ResetOptions, context: CommandContext): Promise<void> {
  const resets = resetsOf(group, options);
  await withClient(options.broker, context, async (client) => {
    // Also with --yes: of several topics, none is moved when one of them cannot be.
    const plan = await planOf(client, resets);
    const { dryRun = false, yes = false, json = false } = options;
    if (dryRun || !yes) {
      print(plan, json, context.output);
      if (dryRun) return;
      await confirm(plan, json, context);
    }
    const reset = await apply(client, resets);
    if (json || yes || !isAsPlanned(reset, plan)) print(reset, json, context.output);
    if (!json) context.output.line(summary(reset));
  });
}

function resetsOf(group: string, { topic: topics, to, shiftBy }: ResetOptions): TopicReset[] {
  const names = topics.map(({ topic }) => topic);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw new UsageError(`--topic names ${twice} twice. Name each topic once, with all its partitions: ${twice}:0,1.`);
  }
  const target = targetOf(to, shiftBy);
  return topics.map(({ topic, partitions }) => ({ group, topic, partitions, to: target }));
}

function targetOf(to: ResetOptions['to'], shiftBy: number | undefined): ResetTarget {
  if (to !== undefined && shiftBy === undefined) {
    return typeof to === 'object' && 'agoMs' in to ? new Date(systemClock.now() - to.agoMs) : to;
  }
  if (to === undefined && shiftBy !== undefined) return { shiftBy };
  throw new UsageError('give exactly one of --to and --shift-by. See tidelog group reset-offsets --help.');
}

type TopicReset = GroupOffsetReset & { readonly topic: string };

interface MovedPartition extends PartitionOffsetReset {
  readonly topic: string;
}

/** What would happen, or has happened. */
interface Reset {
  readonly group: string;
  readonly applied: boolean;
  /** Whether the group was not there before. */
  readonly created: boolean;
  readonly memberCount: number;
  readonly partitions: readonly MovedPartition[];
}

async function planOf(client: Client, resets: readonly TopicReset[]): Promise<Reset> {
  const results = [];
  for (const reset of resets) results.push(await resetOne(client, { ...reset, validateOnly: true }));
  return together(results);
}

async function apply(client: Client, resets: readonly TopicReset[]): Promise<Reset> {
  const results: Reset[] = [];
  for (const reset of resets) {
    try {
      results.push(await resetOne(client, reset));
    } catch (error) {
      throw results.length === 0 ? error : partialFailure(error, reset, results);
    }
  }
  return together(results);
}

async function resetOne(client: Client, reset: TopicReset): Promise<Reset> {
  const { group, topic, validateOnly = false } = reset;
  const { partitions, memberCount, created } = await client.admin.resetGroupOffsets(reset);
  const moved = partitions.map((partition) => ({ topic, ...partition }));
  return { group, applied: !validateOnly, created, memberCount, partitions: moved };
}

function together(results: readonly Reset[]): Reset {
  const [first] = results;
  if (first === undefined) throw new LogError('INTERNAL', 'No topic was named.');
  return { ...first, partitions: results.flatMap(({ partitions }) => partitions) };
}

function partialFailure(error: unknown, { topic }: TopicReset, done: readonly Reset[]): LogError {
  const { reason, message, metadata } = toLogError(error);
  const names = done.flatMap(({ partitions }) => partitions[0]?.topic ?? []);
  return new LogError(reason, `${message} (topic ${topic}; the offsets of ${names.join(', ')} have been reset.)`, {
    metadata,
    cause: error,
  });
}

async function confirm({ group, partitions }: Reset, json: boolean, context: CommandContext): Promise<void> {
  if (json || context.confirm === undefined) {
    throw new UsageError('nothing was changed: add --yes to reset these offsets, or --dry-run to only look.');
  }
  await context.output.flush();
  if (await context.confirm(`Reset the offsets of ${count(partitions.length, 'partition')} of group ${group}?`)) return;
  throw new LogError('CANCELLED', 'Nothing was changed.', { outcome: 'none' });
}

function print(reset: Reset, json: boolean, output: Output): void {
  if (json) output.json({ ...reset, partitions: reset.partitions.map(movedJson) });
  else printText(reset, output);
}

function movedJson(moved: MovedPartition): object {
  return {
    topic: moved.topic,
    partition: moved.partition,
    offsetBefore: moved.offsetBefore ?? null,
    offsetAfter: moved.offsetAfter,
    logStartOffset: moved.logStartOffset,
    highWatermark: moved.highWatermark,
    memberId: moved.memberId ?? null,
  };
}

const COLUMNS = ['topic', 'partition', 'current', 'new', 'change', 'lag after', 'owner'];

function printText(reset: Reset, output: Output): void {
  const { applied, partitions } = reset;
  output.table(applied ? COLUMNS.with(2, 'before') : COLUMNS, partitions.map(row));
  output.line('');
  for (const line of [distances(partitions), fate(reset)]) if (line !== undefined) output.line(line);
}

function row(moved: MovedPartition): readonly (string | number)[] {
  const { topic, partition, offsetBefore, offsetAfter, highWatermark, memberId } = moved;
  const change = offsetBefore === undefined ? NOTHING : signed(offsetAfter - offsetBefore);
  return [
    topic,
    partition,
    offsetBefore ?? NOTHING,
    offsetAfter,
    change,
    highWatermark - offsetAfter,
    memberId ?? NOTHING,
  ];
}

function signed(change: number): string | number {
  return change > 0 ? `+${change}` : change;
}

/** Offsets are counted: compaction may have left fewer records. Undefined where nothing is moved. */
function distances(partitions: readonly MovedPartition[]): string | undefined {
  let back = 0;
  let forward = 0;
  for (const { offsetBefore, offsetAfter } of partitions) {
    const change = offsetBefore === undefined ? 0 : offsetAfter - offsetBefore;
    if (change < 0) back -= change;
    else forward += change;
  }
  const parts = [
    ...(back > 0 ? [`read again: up to ${count(back, 'record')}`] : []),
    ...(forward > 0 ? [`skipped: up to ${count(forward, 'record')}`] : []),
  ];
  return parts.length === 0 ? undefined : `To be ${parts.join('; ')}.`;
}

function fate({ created, memberCount, applied }: Reset): string {
  if (created) return `The group ${applied ? 'did not exist: it was' : 'does not exist: it would be'} created.`;
  if (memberCount === 0) return 'The group has no members: whoever joins begins at these offsets.';
  return (
    `The group has ${count(memberCount, 'member')}: whoever owns one of these partitions drops what it holds of it ` +
    'without committing it, and goes on from the new offset.'
  );
}

/** The group may have moved on, and the log with it, while the question was answered. */
function isAsPlanned(reset: Reset, plan: Reset): boolean {
  const planned = new Map(plan.partitions.map((moved) => [`${moved.topic}-${moved.partition}`, moved.offsetAfter]));
  return (
    reset.partitions.length === planned.size &&
    reset.partitions.every(({ topic, partition, offsetAfter }) => planned.get(`${topic}-${partition}`) === offsetAfter)
  );
}

function summary({ group, partitions }: Reset): string {
  return `Reset the offsets of ${count(partitions.length, 'partition')} of group ${group}.`;
}
