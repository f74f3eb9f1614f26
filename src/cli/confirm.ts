/** Asking the person at the terminal. */
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { Interrupted } from './failure.js';

/** Asks a question that can be answered with yes; anything else, and the end of the input, is a no. */
export type Confirm = (question: string) => Promise<boolean>;

/** Asks on these streams of a terminal. Ctrl-C rejects with Interrupted. */
export function confirmOn(input: Readable, output: Writable): Confirm {
  return async (question) => /^y(?:es)?$/i.test((await ask(`${question} [y/N] `, input, output)).trim());
}

function ask(prompt: string, input: Readable, output: Writable): Promise<string> {
  const lines = createInterface({ input, output, terminal: true });
  const answer = new Promise<string>((resolve, reject) => {
    lines.on('SIGINT', () => reject(new Interrupted()));
    lines.on('close', () => resolve(''));
    lines.question(prompt, resolve);
  });
  return answer.finally(() => {
    lines.close();
  });
}
