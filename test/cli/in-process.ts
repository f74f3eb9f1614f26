/** Commands run inside the test: what they print and how they end, without the cost of a process. */
import { Writable } from 'node:stream';
import type { Confirm } from '../../src/cli/confirm.js';
import { execute } from '../../src/cli/main.js';
import { Output } from '../../src/cli/output.js';

export interface Executed {
  readonly code: number;
  readonly stdout: string;
  /** What goes to standard error at the end. */
  readonly line: string | undefined;
}

/**
 * @param broker address of the broker that client commands talk to
 * @param confirm who sits at the terminal, if anybody
 */
export async function executed(broker: string, args: readonly string[], confirm?: Confirm): Promise<Executed> {
  let stdout = '';
  const stream = new Writable({
    write: (chunk, _encoding, done) => {
      stdout += String(chunk);
      done();
    },
  });
  const output = new Output(stream);
  const { exitCode, line } = await execute(args, { output, environment: { TIDELOG_BROKER: broker }, confirm });
  await output.flush();
  return { code: exitCode, stdout, line };
}
