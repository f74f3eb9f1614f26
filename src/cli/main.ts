/** The command line: from arguments to an exit code. */
import { processArguments, processEnvironment } from '../config/environment.js';
import { type Confirm, confirmOn } from './confirm.js';
import { type Ending, EXIT_OK, endingOf } from './failure.js';
import { endQuietlyWhenClosed, Output } from './output.js';
import { buildProgram, type CommandContext } from './program.js';

/** Runs the command of this process's command line, and ends the process with its exit code. */
export async function runProcess(): Promise<void> {
  const output = new Output(process.stdout);
  endQuietlyWhenClosed(process.stdout, output);
  // Nobody is left to read what went wrong: the exit code still says that it did.
  process.stderr.on('error', () => undefined);
  process.on('uncaughtException', (error) => {
    const { exitCode, line } = endingOf(error);
    if (line !== undefined) process.stderr.write(`${line}\n`);
    process.exit(exitCode);
  });
  const context = { output, environment: processEnvironment(), confirm: confirmOnTerminal() };
  const { exitCode, line } = await execute(processArguments(), context);
  await output.flush();
  if (line !== undefined) process.stderr.write(`${line}\n`);
  process.exit(exitCode);
}

/** Questions go to standard error, so that the output of a command can go elsewhere. */
function confirmOnTerminal(): Confirm | undefined {
  return process.stdin.isTTY && process.stderr.isTTY ? confirmOn(process.stdin, process.stderr) : undefined;
}

/** Runs one command. Never rejects. */
export async function execute(args: readonly string[], context: CommandContext): Promise<Ending> {
  try {
    const program = await buildProgram(args, context);
    await program.parseAsync(args, { from: 'user' });
    return { exitCode: EXIT_OK, line: undefined };
  } catch (error) {
    return endingOf(error);
  }
}
