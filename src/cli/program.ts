/** The commands there are. Each is loaded when it is the one that was called: `serve` starts fast for it. */
import { Command, CommanderError } from 'commander';
import type { Environment } from '../config/environment.js';
import { VERSION } from '../version.js';
import type { Confirm } from './confirm.js';
import { EXIT_OK, HELP_SHOWN } from './failure.js';
import type { Output } from './output.js';

/** What every command gets. */
export interface CommandContext {
  readonly output: Output;
  readonly environment: Environment;
  /** Asks the person who called the command; undefined when there is none at a terminal. */
  readonly confirm?: Confirm | undefined;
}

/** Gives a command its arguments, options, help and action. */
export type Configure = (command: Command, context: CommandContext) => void;

interface CommandEntry {
  readonly summary: string;
  readonly load: () => Promise<{ readonly configure: Configure }>;
}

const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  serve: { summary: 'run the broker', load: () => import('./commands/serve.js') },
  topic: {
    summary: 'create, list, describe, alter and delete topics, delete records',
    load: () => import('./commands/topic.js'),
  },
  produce: { summary: 'write records from a file or standard input', load: () => import('./commands/produce.js') },
  consume: {
    summary: 'print records, follow the tail, replay, be a member of a group',
    load: () => import('./commands/consume.js'),
  },
  group: {
    summary: 'list, describe and delete consumer groups, reset their offsets',
    load: () => import('./commands/group.js'),
  },
  transaction: {
    summary: 'list, describe and abort transactions, find hanging ones',
    load: () => import('./commands/transaction.js'),
  },
  producer: { summary: 'show the producers that a partition remembers', load: () => import('./commands/producer.js') },
  log: { summary: 'look into log files and check them, without a broker', load: () => import('./commands/log.js') },
  version: { summary: 'print the version', load: () => import('./commands/version.js') },
};

const EXAMPLES = `
Examples:
  tidelog serve --data-dir ./data
  tidelog topic create orders --partitions 6
  echo 'u1:{"cents":999}' | tidelog produce orders --key-separator :
  tidelog consume orders --from earliest --to end --format json
  tidelog consume orders --group billing
  tidelog group describe billing
  tidelog transaction list
  tidelog log verify ./data

Exit codes: 0 done, 1 a failure (one line on standard error), 2 wrong usage.`;

/** The program with the one command loaded that `args` call. Parsing throws CommanderError on wrong usage. */
export async function buildProgram(args: readonly string[], context: CommandContext): Promise<Command> {
  const program = new Command('tidelog')
    .description('Tidelog: a partitioned, append-only log broker.')
    .usage('<command> [options]')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show the help of a command')
    .addHelpText('after', EXAMPLES);
  const called = args.find((argument) => Object.hasOwn(COMMANDS, argument));
  for (const [name, { summary, load }] of Object.entries(COMMANDS)) {
    const command = program.command(name).summary(summary).description(`Tidelog: ${summary}.`);
    if (name === called) (await load()).configure(command, context);
  }
  prepare(program);
  return program;
}

/** Makes a command and those below it throw instead of ending the process, and say what would have been right. */
function prepare(command: Command): void {
  command.exitOverride((error) => {
    throw withAdvice(command, error);
  });
  // The failure is reported once, by whoever ends the process.
  command.configureOutput({ outputError: () => undefined });
  for (const subcommand of command.commands) prepare(subcommand);
}

/** Commander's codes for things that a list of what there is would have prevented. */
const UNKNOWN_OPTION = 'commander.unknownOption';
const UNKNOWN_COMMAND = 'commander.unknownCommand';

function withAdvice(command: Command, error: CommanderError): CommanderError {
  if (error.exitCode === EXIT_OK || error.code === HELP_SHOWN) return error;
  const path = pathOf(command);
  // Commander appends a guess on a line of its own.
  const message = error.message.split('\n', 1)[0] ?? error.message;
  const advice = [`${message}.`];
  if (error.code === UNKNOWN_OPTION) advice.push(`Options of ${path}: ${optionsOf(command).join(', ')}.`);
  if (error.code === UNKNOWN_COMMAND) advice.push(`Commands of ${path}: ${namesOf(command).join(', ')}.`);
  advice.push(`See ${path} --help.`);
  return new CommanderError(error.exitCode, error.code, advice.join(' ').replaceAll('..', '.'));
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function optionsOf(command: Command): readonly string[] {
  return [...command.options.map((option) => option.long ?? option.flags), '--help'];
}

function namesOf(command: Command): readonly string[] {
  return command.commands.map((subcommand) => subcommand.name());
}
