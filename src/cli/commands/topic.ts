/** `tidelog topic create|list|describe|delete` */
import type { Command } from 'commander';
import type { PartitionDescription, TopicDescription } from '../../client/admin.js';
import { brokerOption, keyValue, repeated, wholeNumber } from '../arguments.js';
import { count, type Output } from '../output.js';
import type { CommandContext } from '../program.js';
import { withClient } from '../with-client.js';

interface CommonOptions {
  readonly broker?: string;
  readonly json?: boolean;
}

interface CreateOptions extends CommonOptions {
  readonly partitions?: number;
  readonly config?: readonly (readonly [string, string])[];
}

interface ListOptions extends CommonOptions {
  readonly internal?: boolean;
}

export function configure(command: Command, context: CommandContext): void {
  command.addHelpText(
    'after',
    `
Examples:
  tidelog topic create orders --partitions 6 --config segment.bytes=67108864
  tidelog topic list --json
  tidelog topic describe orders`,
  );
  common(command.command('create').argument('<name>').description('Create a topic.'))
    .option('--partitions <n>', "Number of partitions. Default: the broker's.", wholeNumber(1))
    .option('--config <key=value>', 'Topic configuration; repeat for more keys.', repeated(keyValue))
    .action((name: string, options: CreateOptions) => create(name, options, context));
  common(command.command('list').description('List the topics.'))
    .option('--internal', 'Internal topics as well.')
    .action((options: ListOptions) => list(options, context));
  common(command.command('describe').argument('<name>').description('Show partitions and configuration.')).action(
    (name: string, options: CommonOptions) => describe(name, options, context),
  );
  common(command.command('delete').argument('<name>').description('Delete a topic and its records for good.')).action(
    (name: string, options: CommonOptions) => remove(name, options, context),
  );
}

function common(command: Command): Command {
  return command.option('--json', 'Print JSON.').addOption(brokerOption());
}

async function create(name: string, options: CreateOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const topic = await client.admin.createTopic({
      name,
      ...(options.partitions === undefined ? {} : { partitions: options.partitions }),
      configs: Object.fromEntries(options.config ?? []),
    });
    if (options.json) context.output.json(topicJson(topic));
    else context.output.line(`Created topic ${topic.name} with ${count(topic.partitionCount, 'partition')}.`);
  });
}

async function list(options: ListOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const topics = await client.admin.listTopics({ includeInternal: options.internal ?? false });
    if (options.json) context.output.json(topics);
    else if (topics.length === 0) context.output.line('There are no topics.');
    else {
      const rows = topics.map((topic) => [topic.name, topic.partitionCount, topic.topicId]);
      context.output.table(['name', 'partitions', 'topic id'], rows);
    }
  });
}

async function describe(name: string, options: CommonOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const topic = await client.admin.getTopic(name);
    if (options.json) context.output.json(topicJson(topic));
    else printTopic(topic, context.output);
  });
}

async function remove(name: string, options: CommonOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    await client.admin.deleteTopic(name);
    if (options.json) context.output.json({ deleted: name });
    else context.output.line(`Deleted topic ${name}.`);
  });
}

/** JSON has no `undefined`: a partition without a failure says null. */
function topicJson(topic: TopicDescription): object {
  const partitions = topic.partitions.map((partition) => ({
    ...partition,
    failureReason: partition.failureReason ?? null,
  }));
  return { ...topic, partitions };
}

function printTopic(topic: TopicDescription, output: Output): void {
  output.line(`Topic ${topic.name}, id ${topic.topicId}, ${count(topic.partitionCount, 'partition')}`);
  output.line('');
  output.table(
    ['partition', 'log start', 'high watermark', 'log end', 'segments', 'bytes', 'state'],
    topic.partitions.map(partitionRow),
  );
  output.line('');
  output.table(
    ['configuration', 'value', 'source'],
    topic.configs.map(({ key, value, source }) => [key, value, source]),
  );
}

function partitionRow(partition: PartitionDescription): readonly (string | number)[] {
  const { logStartOffset, highWatermark, logEndOffset, segmentCount, sizeBytes, failureReason } = partition;
  const state = failureReason ?? 'ok';
  return [partition.partition, logStartOffset, highWatermark, logEndOffset, segmentCount, sizeBytes, state];
}
