/** `tidelog topic ...`: creating, listing and deleting here, the other commands in the files beside. */
import type { Command } from 'commander';
import { keyValue, repeated, wholeNumber } from '../arguments.js';
import { count } from '../output.js';
import type { CommandContext } from '../program.js';
import { withClient } from '../with-client.js';
import { configureAlter } from './topic-alter.js';
import { common, describeTopic, type TopicOptions, topicCommand, topicJson } from './topic-common.js';
import { configureRecords } from './topic-records.js';

interface CreateOptions extends TopicOptions {
  readonly partitions?: number;
  readonly config?: readonly (readonly [string, string])[];
}

interface ListOptions extends TopicOptions {
  readonly internal?: boolean;
}

const HELP = `
Examples:
  tidelog topic create orders --partitions 6 --config retention.ms=604800000
  tidelog topic list --json
  tidelog topic describe orders
  tidelog topic alter orders --partitions 8 --config cleanup.policy=compact,delete --config -segment.ms
  tidelog topic delete-records orders --partition 0 --before-offset 1000
  tidelog topic delete orders`;

export function configure(command: Command, context: CommandContext): void {
  command.addHelpText('after', HELP);
  topicCommand(command, 'create', 'Create a topic.')
    .option('--partitions <n>', "Number of partitions. Default: the broker's.", wholeNumber(1))
    .option('--config <key=value>', 'Topic configuration; repeat for more keys.', repeated(keyValue))
    .addHelpText('after', CREATE_HELP)
    .action((name: string, options: CreateOptions) => create(name, options, context));
  common(command.command('list').description('List the topics.'))
    .option('--internal', 'Internal topics as well.')
    .action((options: ListOptions) => list(options, context));
  topicCommand(command, 'describe', 'Show partitions and configuration.').action(
    (name: string, options: TopicOptions) => describe(name, options, context),
  );
  configureAlter(command, context);
  configureRecords(command, context);
  topicCommand(command, 'delete', 'Delete a topic and its records for good.').action(
    (name: string, options: TopicOptions) => remove(name, options, context),
  );
}

const CREATE_HELP = `
Examples:
  tidelog topic create orders --partitions 4 --config retention.ms=604800000
  tidelog topic create accounts --config cleanup.policy=compact,delete`;

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

async function describe(name: string, options: TopicOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const topic = await client.admin.getTopic(name);
    if (options.json) context.output.json(topicJson(topic));
    else describeTopic(topic, context.output);
  });
}

async function remove(name: string, options: TopicOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    await client.admin.deleteTopic(name);
    if (options.json) context.output.json({ deleted: name });
    else context.output.line(`Deleted topic ${name}.`);
  });
}
