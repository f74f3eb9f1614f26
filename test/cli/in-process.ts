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
  forgetInterrupts();
  await output.flush();
  return { code: exitCode, stdout, line };
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const OWN_LISTENERS = new Map(SIGNALS.map((signal) => [signal, process.listeners(signal)]));

/** A command that ends with its process leaves it listening to signals; here one after the other would. */
function forgetInterrupts(): void {
  for (const signal of SIGNALS) {
    for (const listener of process.listeners(signal)) {
      if (!OWN_LISTENERS.get(signal)?.includes(listener)) process.removeListener(signal, listener);
    }
  }
}
