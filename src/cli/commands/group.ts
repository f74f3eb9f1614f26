/** `tidelog group ...`: listing, describing and deleting here, resetting offsets in the file beside. */
import type { Command } from 'commander';
import type { CommandContext } from '../program.js';
import { withClient } from '../with-client.js';
import { common, describeGroup, type GroupOptions, groupCommand, groupJson, listGroups } from './group-common.js';
import { configureReset } from './group-reset.js';

interface DescribeOptions extends GroupOptions {
  readonly members?: boolean;
}

const HELP = `
Examples:
  tidelog group list
  tidelog group describe billing --members
  tidelog group reset-offsets billing --topic orders --to earliest
  tidelog group delete billing`;

const LIST_HELP = `
States: empty (no members), assigning (the assignment is about to be worked out), reconciling (some partition is still on
its way to the member that is to have it), stable.`;

const DESCRIBE_HELP = `
Shows each partition that the group has committed an offset of, or that a member owns. COMMITTED is the next offset to
read. LAG counts the offsets from there to the high watermark, or from the log start offset where nothing was committed.
LAG TIME is the age of the first record that is not covered by the committed offset. What there is not is "-". A static
member that has stopped is "(away)" until it comes back or its session is over: until then nobody reads its partitions. With
--json everything is printed, members included.

Examples:
  tidelog group describe billing
  tidelog group describe billing --json`;

const DELETE_HELP = `
A group with members is not deleted: stop its consumers first, or wait until their sessions are over. A consumer that joins
later begins where its own policy says.`;

export function configure(command: Command, context: CommandContext): void {
  command.addHelpText('after', HELP);
  common(command.command('list').description('List the consumer groups.'))
    .addHelpText('after', LIST_HELP)
    .action((options: GroupOptions) => list(options, context));
  groupCommand(command, 'describe', 'Show state, committed offsets, lag and owners.')
    .option('--members', 'The members as well.')
    .addHelpText('after', DESCRIBE_HELP)
    .action((group: string, options: DescribeOptions) => describe(group, options, context));
  configureReset(command, context);
  groupCommand(command, 'delete', 'Delete a group without members, and its committed offsets.')
    .addHelpText('after', DELETE_HELP)
    .action((group: string, options: GroupOptions) => remove(group, options, context));
}

async function list(options: GroupOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const groups = await client.admin.listGroups();
    if (options.json) context.output.json(groups);
    else if (groups.length === 0) context.output.line('There are no groups.');
    else listGroups(groups, context.output);
  });
}

async function describe(groupId: string, options: DescribeOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const group = await client.admin.getGroup(groupId);
    if (options.json) context.output.json(groupJson(group));
    else describeGroup(group, options.members ?? false, context.output);
  });
}

async function remove(groupId: string, options: GroupOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    await client.admin.deleteGroup(groupId);
    if (options.json) context.output.json({ deleted: groupId });
    else context.output.line(`Deleted group ${groupId}.`);
  });
}
