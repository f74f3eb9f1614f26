/** `tidelog transaction ...`: what transactional producers are doing, and ending it for one that is gone. */
import type { Command } from 'commander';
import type { TransactionDescription } from '../../client/admin-transactions.js';
import { brokerOption } from '../arguments.js';
import { UsageError } from '../failure.js';
import { count } from '../output.js';
import type { CommandContext } from '../program.js';
import { formatTime } from '../record-format.js';
import { withClient } from '../with-client.js';

interface TransactionOptions {
  readonly broker?: string;
  readonly json?: boolean;
}

interface AbortOptions extends TransactionOptions {
  readonly yes?: boolean;
}

const HELP = `
Examples:
  tidelog transaction list
  tidelog transaction describe billing-1
  tidelog transaction abort billing-1 --yes
  tidelog transaction find-hanging`;

const LIST_HELP = `
States: empty (nothing was sent yet), ongoing, prepare-commit and prepare-abort (decided, and being carried out),
complete-commit and complete-abort. STARTED is when the open transaction began, or "-".`;

const ABORT_HELP = `
Nothing of the transaction ever becomes visible, and its producer is told so with its next request; it can go on with another
transaction. Readers that wait for the end of the transaction go on. A transaction whose producer is gone is aborted by itself
when its timeout is over.`;

const HANGING_HELP = `
A transaction hangs when a partition holds records of it and no transactional id answers for them: readers of committed
records wait there. The broker looks for them every 10 s and ends them by itself, so there is nothing to be found; what stays
is a defect, and worth a report.`;

const NOTHING = '-';

export function configure(command: Command, context: CommandContext): void {
  command.addHelpText('after', HELP);
  common(command.command('list').description('List the transactional ids.'))
    .addHelpText('after', LIST_HELP)
    .action((options: TransactionOptions) => list(options, context));
  one(command, 'describe', 'Show a transactional id, and what its transaction writes to.').action(
    (id: string, options: TransactionOptions) => describe(id, options, context),
  );
  one(command, 'abort', 'Abort the open transaction of a transactional id.')
    .option('--yes', 'Do it without asking.')
    .addHelpText('after', ABORT_HELP)
    .action((id: string, options: AbortOptions) => abort(id, options, context));
  common(command.command('find-hanging').description('List open transactions that nobody answers for.'))
    .addHelpText('after', HANGING_HELP)
    .action((options: TransactionOptions) => findHanging(options, context));
}

function common(command: Command): Command {
  return command.option('--json', 'Print JSON.').addOption(brokerOption());
}

function one(parent: Command, name: string, description: string): Command {
  return common(parent.command(name).argument('<id>', 'The transactional id.').description(description));
}

const timeOf = (timeMs: number | undefined): string =>
  timeMs === undefined ? NOTHING : (formatTime(timeMs) ?? NOTHING);

async function list(options: TransactionOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const { output } = context;
    const transactions = await client.admin.listTransactions();
    if (options.json) {
      output.json(transactions.map(({ startTimeMs, ...rest }) => ({ ...rest, startTimeMs: startTimeMs ?? null })));
    } else if (transactions.length === 0) output.line('There are no transactional ids.');
    else {
      output.table(
        ['id', 'state', 'producer id', 'epoch', 'timeout ms', 'started', 'changed'],
        transactions.map(
          ({ transactionalId, state, producerId, producerEpoch, timeoutMs, startTimeMs, updateTimeMs }) => [
            transactionalId,
            state,
            producerId,
            producerEpoch,
            timeoutMs,
            timeOf(startTimeMs),
            timeOf(updateTimeMs),
          ],
        ),
      );
    }
  });
}

function print(transaction: TransactionDescription, options: TransactionOptions, { output }: CommandContext): void {
  const { transactionalId, state, producerId, producerEpoch, timeoutMs, startTimeMs, partitions, groupIds } =
    transaction;
  if (options.json) {
    output.json({ ...transaction, startTimeMs: startTimeMs ?? null });
    return;
  }
  output.line(`Transactional id ${transactionalId}: ${state}, producer id ${producerId}, epoch ${producerEpoch}`);
  output.line(`Transactions may take ${timeoutMs} ms. Last change: ${formatTime(transaction.updateTimeMs)}.`);
  if (startTimeMs !== undefined) output.line(`The transaction began at ${formatTime(startTimeMs)}.`);
  for (const groupId of groupIds) output.line(`It commits offsets of group ${groupId}.`);
  if (partitions.length === 0) return;
  output.line('');
  output.table(
    ['topic', 'partition'],
    partitions.map(({ topic, partition }) => [topic, partition]),
  );
}

async function describe(id: string, options: TransactionOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    print(await client.admin.describeTransaction(id), options, context);
  });
}

async function abort(id: string, options: AbortOptions, context: CommandContext): Promise<void> {
  const { confirm, output } = context;
  if (!options.yes && confirm === undefined) {
    throw new UsageError('Aborting a transaction undoes what its producer has sent: say --yes.');
  }
  await withClient(options.broker, context, async (client) => {
    if (!options.yes) {
      const { state, partitions } = await client.admin.describeTransaction(id);
      const question = `The transaction of ${id} is ${state}, in ${count(partitions.length, 'partition')}. Abort it?`;
      if (!(await confirm?.(question))) {
        output.line('Nothing was aborted.');
        return;
      }
    }
    const transaction = await client.admin.abortTransaction(id);
    if (options.json) print(transaction, options, context);
    else output.line(`The transaction of ${id} is aborted.`);
  });
}

async function findHanging(options: TransactionOptions, context: CommandContext): Promise<void> {
  await withClient(options.broker, context, async (client) => {
    const { output } = context;
    const hanging = await client.admin.findHangingTransactions();
    if (options.json) output.json(hanging);
    else if (hanging.length === 0) output.line('No transaction hangs.');
    else {
      output.table(
        ['topic', 'partition', 'producer id', 'epoch', 'first offset'],
        hanging.map((one) => [one.topic, one.partition, one.producerId, one.producerEpoch, one.firstOffset]),
      );
    }
  });
}
