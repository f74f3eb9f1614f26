/** How a command fails: exit codes and the one line that says why. */
import { CommanderError } from 'commander';
import { LogError, toLogError } from '../core/errors.js';

/** Exit codes, part of the command line's contract. */
export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** A shell's code for a process that ended by SIGINT or SIGTERM. */
export const EXIT_SIGINT = 130;
export const EXIT_SIGTERM = 143;

/** The command line was wrong: nothing was done. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command was ended by its user before it was done, and has said so. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(exitCode: number = EXIT_SIGINT) {
    super('interrupted');
    this.exitCode = exitCode;
  }
}

/** Nobody reads the output any more: what `| head` does to a command, and no failure of it. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed';

  constructor() {
    super('the output was closed by its reader');
  }
}

/** What the process ends with. */
export interface Ending {
  readonly exitCode: number;
  /** For standard error, one line without its line feed; undefined when everything was said. */
  readonly line: string | undefined;
}

/** Commander's code for help that is shown: because it was asked for, or because a subcommand is missing. */
export const HELP_SHOWN = 'commander.help';

/** The ending for anything thrown by a command. */
export function endingOf(error: unknown): Ending {
  if (error instanceof Interrupted) return { exitCode: error.exitCode, line: undefined };
  if (error instanceof OutputClosed) return { exitCode: EXIT_OK, line: undefined };
  if (error instanceof CommanderError) return commanderEnding(error);
  if (error instanceof UsageError) return { exitCode: EXIT_USAGE, line: failureLine(error.message) };
  const { reason, message } = toLogError(error);
  return { exitCode: EXIT_FAILURE, line: failureLine(`${reason}: ${message}`) };
}

function commanderEnding(error: CommanderError): Ending {
  if (error.exitCode === EXIT_OK) return { exitCode: EXIT_OK, line: undefined };
  if (error.code === HELP_SHOWN) return { exitCode: EXIT_USAGE, line: undefined };
  return { exitCode: EXIT_USAGE, line: failureLine(error.message.replace(/^error: /, '')) };
}

/** `tidelog: ...` on one line, whatever the message holds. */
export function failureLine(message: string): string {
  const text = message.replace(/\s+/g, ' ').trim();
  return `tidelog: ${/[.!?)]$/.test(text) ? text : `${text}.`}`;
}

/** A wrong configuration is wrong usage; everything else keeps its own meaning. */
export function asUsageError(error: unknown): unknown {
  if (error instanceof LogError && error.reason === 'INVALID_CONFIG') {
    return new UsageError(`${error.reason}: ${error.message}`);
  }
  return error;
}
