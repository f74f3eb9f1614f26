/** `tidelog topic alter` */
import { type Command, InvalidArgumentError } from 'commander';
import type { TopicDescription } from '../../client/admin.js';
import { repeated, wholeNumber } from '../arguments.js';
import { UsageError } from '../failure.js';
import type { CommandContext } from '../program.js';
import { withClient } from '../with-client.js';
import { type TopicOptions, topicCommand, topicJson } from './topic-common.js';

/** A key and its new value; null takes the topic's own value back. */
type ConfigChange = readonly [key: string, value: string | null];

interface AlterOptions extends TopicOptions {
  readonly partitions?: number;
  readonly config?: readonly ConfigChange[];
}

const HELP = `
A value of --config holds from now on, without a restart; a leading minus takes the topic's own value back, so that the
broker's or the default holds again. All of it is changed, or nothing.

The number of partitions only ever rises. Existing partitions are kept, but records with one key may go to another
partition than before: the order of a key holds from then on, not across the change.

Examples:
  tidelog topic alter orders --config retention.bytes=1073741824 --config -segment.ms
  tidelog topic alter orders --partitions 8`;

export function configureAlter(parent: Command, context: CommandContext): void {
  topicCommand(parent, 'alter', 'Change configuration and add partitions.')
    .option('--partitions <n>', 'Number of partitions afterwards.', wholeNumber(1))
    .option(
      '--config <key=value>',
      'Set a key, or -KEY to restore its default; repeat for more.',
      repeated(configChange),
    )
    .addHelpText('after', HELP)
    .action((name: string, options: AlterOptions) => alter(name, options, context));
}

function configChange(value: string): ConfigChange {
  const match = /^(?:-(?<reset>[^=]+)|(?<set>[^-=][^=]*)=(?<value>.*))$/s.exec(value)?.groups;
  if (match?.reset !== undefined) return [match.reset, null];
  if (match?.set !== undefined && match.value !== undefined) return [match.set, match.value];
  throw new InvalidArgumentError('It takes key=value, or -key, as in retention.ms=86400000 or -segment.ms.');
}

async function alter(name: string, options: AlterOptions, context: CommandContext): Promise<void> {
  const { partitions, config = [] } = options;
  if (partitions === undefined && config.length === 0) {
    throw new UsageError(
      'there is nothing to alter: give --config, --partitions or both. See tidelog topic alter --help.',
    );
  }
  const configs = uniqueKeys(config);
  await withClient(options.broker, context, async (client) => {
    const before = await client.admin.getTopic(name);
    const after = await client.admin.updateTopic({
      name,
      configs,
      ...(partitions === undefined ? {} : { partitions }),
    });
    const changes = changesBetween(before, after);
    if (options.json) context.output.json({ ...topicJson(after), changes });
    else if (changes.length === 0) context.output.line(`Topic ${name} is like that already: nothing has changed.`);
    else for (const change of changes) context.output.line(formatChange(change));
  });
}

function uniqueKeys(changes: readonly ConfigChange[]): Readonly<Record<string, string | null>> {
  const configs = new Map<string, string | null>();
  for (const [key, value] of changes) {
    if (configs.has(key)) throw new UsageError(`--config names ${key} twice. Name each key once.`);
    configs.set(key, value);
  }
  return Object.fromEntries(configs);
}

interface Change {
  readonly key: string;
  readonly oldValue: string;
  readonly newValue: string;
  /** Where a configuration value comes from now; absent for the number of partitions. */
  readonly source?: string;
}

function changesBetween(before: TopicDescription, after: TopicDescription): readonly Change[] {
  const changes: Change[] = [];
  if (after.partitionCount !== before.partitionCount) {
    const newValue = String(after.partitionCount);
    changes.push({ key: 'partitions', oldValue: String(before.partitionCount), newValue });
  }
  const old = new Map(before.configs.map((config) => [config.key, config]));
  for (const { key, value, source } of after.configs) {
    const known = old.get(key);
    if (known === undefined || (known.value === value && known.source === source)) continue;
    changes.push({ key, oldValue: known.value, newValue: value, source });
  }
  return changes;
}

function formatChange({ key, oldValue, newValue, source }: Change): string {
  return `${key}: ${oldValue} -> ${newValue}${source === undefined ? '' : ` (${source})`}`;
}
