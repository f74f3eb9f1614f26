/** `tidelog consume`: records of a topic on standard output, from any offset or time, to the end or for ever. */
import { type Command, Option } from 'commander';
import type { Client } from '../../client/client.js';
import type { ReadFrom, ReadOptions, ReadTo } from '../../client/read-options.js';
import type { RecordBatch } from '../../client/record-batch.js';
import { LogError } from '../../core/errors.js';
import { brokerOption, position, repeated, wholeNumber } from '../arguments.js';
import { listenForInterrupt } from '../interrupt.js';
import type { CommandContext } from '../program.js';
import { RecordPrinter } from '../record-printer.js';
import { withClient } from '../with-client.js';

interface ConsumeOptions {
  readonly partition?: readonly number[];
  readonly from: ReadFrom;
  readonly to?: Exclude<ReadTo, undefined>;
  readonly max?: number;
  readonly format: 'value' | 'json';
  readonly broker?: string;
}

const HELP = `
Without --to the command follows the tail until Ctrl-C, which ends it with exit code 0. "--to end" stops at the high
watermark that held when the command started; an offset or a time is exclusive. Times are ISO 8601, in UTC where no zone
is given, and mean the first record at or after them. Offsets count in each partition by itself.

With --format value a line is the record's value as it is, empty for a null value. With --format json it is an object:
topic, partition, offset, timestamp (ISO, null for none), key, value, headers ([{"key", "value"}]). Bytes that are not
UTF-8 stand in Base64 as keyBase64 or valueBase64 instead.

Examples:
  tidelog consume orders
  tidelog consume orders --to end --format json
  tidelog consume orders --partition 0 --partition 3 --from 1000 --max 10
  tidelog consume orders --from 2026-01-31T12:00:00Z --to 2026-02-01`;

export function configure(command: Command, context: CommandContext): void {
  command
    .argument('<topic>')
    .option('--partition <n>', 'Read this partition; repeat for more. Default: all.', repeated(wholeNumber(0)))
    .addOption(
      new Option('--from <from>', 'earliest, latest, an offset or a time.')
        .argParser(position(['earliest', 'latest']))
        .default('earliest'),
    )
    .addOption(new Option('--to <to>', 'end, an offset or a time. Default: never.').argParser(position(['end'])))
    .option('--max <n>', 'Stop after this many records.', wholeNumber(1))
    .addOption(new Option('--format <format>', 'What to print.').choices(['value', 'json']).default('value'))
    .addOption(brokerOption())
    .addHelpText('after', HELP)
    .action((topic: string, options: ConsumeOptions) => consume(topic, options, context));
}

async function consume(name: string, options: ConsumeOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const { signal } = listenForInterrupt();
    const batches = await openTopic(client, name, readOptions(options, signal));
    const printer = new RecordPrinter(context.output, name, options);
    try {
      for await (const batch of batches) {
        await printer.printBatch(batch, signal);
        if (!printer.wantsMore) break;
      }
    } catch (error) {
      // Ctrl-C is how one stops following.
      if (!signal.aborted || !(error instanceof LogError) || error.reason !== 'CANCELLED') throw error;
    }
    await context.output.flush();
  });
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

function readOptions({ from, to, partition }: ConsumeOptions, signal: AbortSignal): ReadOptions {
  return {
    from,
    signal,
    ...(to === undefined ? {} : { to }),
    ...(partition === undefined ? {} : { partitions: partition }),
  };
}
