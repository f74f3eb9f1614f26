/** `tidelog topic delete-records` and `tidelog topic truncate-all` */
import { type Command, InvalidArgumentError } from 'commander';
import type { DeletedRecords, RecordsToDelete, TopicDescription } from '../../client/admin.js';
import { parseTime, repeated, wholeNumber } from '../arguments.js';
import { UsageError } from '../failure.js';
import { count } from '../output.js';
import type { CommandContext } from '../program.js';
import { withClient } from '../with-client.js';
import { type TopicOptions, topicCommand } from './topic-common.js';

interface DeleteRecordsOptions extends TopicOptions {
  readonly partition: readonly number[];
  readonly beforeOffset?: number;
  readonly beforeTime?: Date;
}

interface TruncateOptions extends TopicOptions {
  readonly yes?: boolean;
}

const DELETE_HELP = `
The records are gone for good, and with them the right to read them: the log start offset rises. An offset above the high
watermark is refused. A time means the first record at or after it; when there is none, everything readable goes. Nothing
is deleted anywhere when one of several partitions is refused.

Examples:
  tidelog topic delete-records orders --partition 0 --before-offset 1000
  tidelog topic delete-records orders --partition 0 --partition 1 --before-time 2026-01-31T12:00:00Z`;

const TRUNCATE_HELP = `
Every partition is emptied up to its high watermark; offsets go on from there. The topic and its configuration stay.

Examples:
  tidelog topic truncate-all orders         (says what would be deleted, and deletes nothing)
  tidelog topic truncate-all orders --yes`;

export function configureRecords(parent: Command, context: CommandContext): void {
  topicCommand(parent, 'delete-records', 'Delete records from the beginning of partitions for good.')
    .requiredOption('--partition <n>', 'A partition; repeat for more.', repeated(wholeNumber(0)))
    .option('--before-offset <offset>', 'Delete the records below this offset.', wholeNumber(0))
    .option('--before-time <time>', 'Delete the records before this time (ISO 8601, UTC without a zone).', isoTime)
    .addHelpText('after', DELETE_HELP)
    .action((name: string, options: DeleteRecordsOptions) => deleteRecords(name, options, context));
  topicCommand(parent, 'truncate-all', 'Delete all records of all partitions for good.')
    .option('--yes', 'Do it.')
    .addHelpText('after', TRUNCATE_HELP)
    .action((name: string, options: TruncateOptions) => truncateAll(name, options, context));
}

function isoTime(value: string): Date {
  const time = parseTime(value);
  if (time !== undefined) return time;
  throw new InvalidArgumentError('It takes a time such as 2026-01-31T12:00:00Z (UTC where no zone is given).');
}

async function deleteRecords(name: string, options: DeleteRecordsOptions, context: CommandContext): Promise<void> {
  const targets = targetsOf(options);
  await withClient(options.broker, context, async (client) => {
    report(name, await client.admin.deleteRecords(name, targets), options, context);
  });
}

function targetsOf({ partition: partitions, beforeOffset, beforeTime }: DeleteRecordsOptions): RecordsToDelete[] {
  if ((beforeOffset === undefined) === (beforeTime === undefined)) {
    throw new UsageError(
      'give exactly one of --before-offset and --before-time. See tidelog topic delete-records --help.',
    );
  }
  return partitions.map((partition) =>
    beforeTime === undefined ? { partition, beforeOffset: beforeOffset ?? 0 } : { partition, beforeTime },
  );
}

async function truncateAll(name: string, options: TruncateOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const topic = await client.admin.getTopic(name);
    if (!options.yes) throw new UsageError(`${whatWouldGo(topic)} Repeat the command with --yes to do that.`);
    const targets = topic.partitions.map(({ partition }) => ({ partition, beforeOffset: 'latest' as const }));
    report(name, await client.admin.deleteRecords(name, targets), options, context);
  });
}

/** Offsets are counted: compaction may have left fewer records. */
function whatWouldGo({ name, partitions }: TopicDescription): string {
  const offsets = partitions.reduce(
    (sum, { logStartOffset, highWatermark }) => sum + highWatermark - logStartOffset,
    0,
  );
  const bytes = partitions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const where = `${count(partitions.length, 'partition')} of topic ${name}`;
  return `this would delete everything in ${where} for good: up to ${count(offsets, 'record')} in ${count(bytes, 'byte')}.`;
}

function report(
  name: string,
  deleted: readonly DeletedRecords[],
  { json }: TopicOptions,
  { output }: CommandContext,
): void {
  if (json) {
    output.json(deleted);
    return;
  }
  for (const { partition, logStartOffset } of deleted) {
    output.line(`Partition ${partition} of ${name} begins at offset ${logStartOffset} now.`);
  }
}
