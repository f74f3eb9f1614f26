/** `tidelog producer ...`: the producers that a partition remembers. */
import type { Command } from 'commander';
import { brokerOption, wholeNumber } from '../arguments.js';
import { count } from '../output.js';
import type { CommandContext } from '../program.js';
import { formatTime } from '../record-format.js';
import { withClient } from '../with-client.js';

interface DescribeOptions {
  readonly partition: number;
  readonly broker?: string;
  readonly json?: boolean;
}

const HELP = `
A partition remembers of each idempotent producer what it sent last, so that a repeat is not written twice, until it has sent
nothing for producer.id.expiration.ms (24 h). LAST SEQUENCE counts the records that it has sent to this partition, from 0;
"-" when it has sent nothing under its epoch. LAST TIMESTAMP is that of the newest record of its last batch. OPEN SINCE is
when its open transaction began, or "-"; readers of committed records wait at the offset behind it.

Examples:
  tidelog producer describe orders --partition 0
  tidelog producer describe orders --partition 0 --json`;

const NOTHING = '-';

export function configure(command: Command, context: CommandContext): void {
  command.addHelpText('after', HELP);
  command
    .command('describe')
    .argument('<topic>')
    .description('Show the producers that a partition remembers.')
    .requiredOption('--partition <n>', 'The partition.', wholeNumber(0))
    .option('--json', 'Print JSON.')
    .addOption(brokerOption())
    .action((topic: string, options: DescribeOptions) => describe(topic, options, context));
}

async function describe(topic: string, options: DescribeOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const { output } = context;
    const producers = await client.admin.describeProducers(topic, options.partition);
    if (options.json) {
      output.json(
        producers.map(({ openTransaction, ...rest }) => ({ ...rest, openTransaction: openTransaction ?? null })),
      );
      return;
    }
    if (producers.length === 0) {
      output.line(`${topic}-${options.partition} remembers no producers.`);
      return;
    }
    output.table(
      ['producer id', 'epoch', 'last sequence', 'last timestamp', 'open since', 'at offset'],
      producers.map(({ producerId, producerEpoch, lastSequence, lastTimestampMs, openTransaction: open }) => [
        producerId,
        producerEpoch,
        lastSequence < 0 ? NOTHING : lastSequence,
        lastTimestampMs < 0 ? NOTHING : (formatTime(lastTimestampMs) ?? NOTHING),
        open === undefined ? NOTHING : (formatTime(open.startTimeMs) ?? NOTHING),
        open === undefined ? NOTHING : open.firstOffset,
      ]),
    );
    output.line('');
    output.line(count(producers.length, 'producer'));
  });
}
