/** `tidelog consume`: records of a topic on standard output, from any offset or time, to the end or for ever. */
import { type Command, Option } from 'commander';
import type { Client } from '../../client/client.js';
import type { ConsumerOptions } from '../../client/consumer-options.js';
import type { Isolation, ReadFrom, ReadOptions, ReadTo } from '../../client/read-options.js';
import type { RecordBatch } from '../../client/record-batch.js';
import { LogError } from '../../core/errors.js';
import { brokerOption, position, repeated, wholeNumber } from '../arguments.js';
import { UsageError } from '../failure.js';
import { listenForInterrupt } from '../interrupt.js';
import type { CommandContext } from '../program.js';
import { RecordPrinter } from '../record-printer.js';
import { withClient } from '../with-client.js';
import { consumeInGroup } from './consume-group.js';

interface ConsumeOptions {
  readonly partition?: readonly number[];
  readonly group?: string;
  readonly instanceId?: string;
  readonly from?: Extract<ReadFrom, string | number | Date>;
  readonly to?: Exclude<ReadTo, undefined>;
  readonly max?: number;
  readonly format: 'value' | 'json';
  readonly isolation: Isolation;
  readonly broker?: string;
}

const HELP = `
Without --to the command follows the tail until Ctrl-C, which ends it with exit code 0. "--to end" stops at the high
watermark that held when the command started; an offset or a time is exclusive. Times are ISO 8601, in UTC where no zone
is given, and mean the first record at or after them. Offsets count in each partition by itself.

With --format value a line is the record's value as it is, empty for a null value. With --format json it is an object:
topic, partition, offset, timestamp (ISO, null for none), key, value, headers ([{"key", "value"}]). Bytes that are not
UTF-8 stand in Base64 as keyBase64 or valueBase64 instead.

Records of transactions appear when their transaction has committed, and "--to end" stops where the oldest open transaction
begins. With --isolation read_uncommitted everything is printed as it lies there, aborted records included.

With --group the partitions are shared with the other members of the group. What was printed is committed every 5 s, and
when the command ends: by --max, by Ctrl-C or by a closed pipe, upon which it leaves the group. Should it be killed, its
partitions go to others when its session is over (45 s), and what was printed since the last commit is printed again.
--from (not an offset) then says where to begin in partitions that the group has committed no offset of, or whose committed
offset was deleted from the log; without it, such a deletion is an error. With --instance-id a command that ends and is
started again within the session finds its partitions as they were; two at once cannot go by one id, so one waits, also
for the session of one that was killed.

Examples:
  tidelog consume orders
  tidelog consume orders --to end --format json
  tidelog consume orders --partition 0 --partition 3 --from 1000 --max 10
  tidelog consume orders --from 2026-01-31T12:00:00Z --to 2026-02-01
  tidelog consume orders --group billing
  tidelog consume orders --group billing --instance-id worker-1 --from latest --format json`;

export function configure(command: Command, context: CommandContext): void {
  command
    .argument('<topic>')
    .option('--partition <n>', 'Read this partition; repeat for more. Default: all.', repeated(wholeNumber(0)))
    .option('--group <group>', 'Be a member of this consumer group: go on from its committed offsets, and commit.')
    .option('--instance-id <id>', 'With --group: a name under which the member comes back to the same partitions.')
    .addOption(
      new Option('--from <from>', 'earliest, latest, an offset or a time. Default: earliest.').argParser(
        position(['earliest', 'latest']),
      ),
    )
    .addOption(new Option('--to <to>', 'end, an offset or a time. Default: never.').argParser(position(['end'])))
    .option('--max <n>', 'Stop after this many records.', wholeNumber(1))
    .addOption(new Option('--format <format>', 'What to print.').choices(['value', 'json']).default('value'))
    .addOption(
      new Option('--isolation <level>', 'Whether to wait for transactions, and leave out what was aborted.')
        .choices(['read_committed', 'read_uncommitted'])
        .default('read_committed'),
    )
    .addOption(brokerOption())
    .addHelpText('after', HELP)
    .action((topic: string, options: ConsumeOptions) => consume(topic, options, context));
}

async function consume(name: string, options: ConsumeOptions, context: CommandContext): Promise<void> {
  const group = groupOptions(options);
  await withClient(options.broker, context, async (client) => {
    const { output } = context;
    const { signal } = listenForInterrupt();
    const printer = new RecordPrinter(output, name, options);
    if (group === undefined) {
      await printTopic(await openTopic(client, name, readOptions(options, signal)), printer, signal);
    } else {
      const consumption = { printer, output, isLimited: options.max !== undefined, interrupt: signal };
      await consumeInGroup(client, name, group, consumption);
    }
    await output.flush();
  });
}

/** Undefined without a group. */
function groupOptions({
  group,
  instanceId,
  from,
  to,
  partition,
  isolation,
}: ConsumeOptions): ConsumerOptions | undefined {
  if (group === undefined) {
    if (instanceId !== undefined) throw new UsageError('--instance-id goes with --group only.');
    return undefined;
  }
  if (partition !== undefined)
    throw new UsageError('--partition does not go with --group: the group assigns partitions.');
  if (to !== undefined) throw new UsageError('--to does not go with --group, which follows its topic: use --max.');
  if (typeof from === 'number') {
    throw new UsageError(
      '--from takes no offset with --group: it begins where the group is. To move a group, use tidelog group reset-offsets.',
    );
  }
  return {
    group,
    isolation,
    ...(from === undefined ? {} : { from }),
    ...(instanceId === undefined ? {} : { instanceId }),
  };
}

async function printTopic(
  batches: AsyncIterable<RecordBatch<Buffer, Bytes>>,
  printer: RecordPrinter,
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const batch of batches) {
      await printer.printBatch(batch, signal);
      if (!printer.wantsMore) break;
    }
  } catch (error) {
    // Ctrl-C is how one stops following.
    if (!signal.aborted || !(error instanceof LogError) || error.reason !== 'CANCELLED') throw error;
  }
}

type Bytes = Buffer | null;

async function openTopic(
  client: Client,
  name: string,
  options: ReadOptions,
): Promise<AsyncIterable<RecordBatch<Buffer, Bytes>>> {
  const { bytes, nullable, topic } = await import('../../client/serdes.js');
  return client.read(topic(name, { key: bytes(), value: nullable(bytes()) }), options).batches();
}

function readOptions(
  { from = 'earliest', to, partition, isolation }: ConsumeOptions,
  signal: AbortSignal,
): ReadOptions {
  return {
    from,
    signal,
    isolation,
    ...(to === undefined ? {} : { to }),
    ...(partition === undefined ? {} : { partitions: partition }),
  };
}
