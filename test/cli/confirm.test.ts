/** Questions at a terminal. */
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { confirmOn } from '../../src/cli/confirm.js';
import { Interrupted } from '../../src/cli/failure.js';

interface Asked {
  readonly answer: Promise<boolean>;
  readonly input: PassThrough;
  readonly shown: () => string;
}

function ask(): Asked {
  const input = new PassThrough();
  const output = new PassThrough();
  let text = '';
  output.on('data', (chunk: Buffer) => {
    text += chunk.toString('utf8');
  });
  return { answer: confirmOn(input, output)('Really?'), input, shown: () => text };
}

test.each([
  ['y', true],
  ['Yes', true],
  [' y ', true],
  ['', false],
  ['n', false],
  ['yesterday', false],
])('the answer %j is taken as %s', async (line, meaning) => {
  const { answer, input, shown } = ask();
  input.write(`${line}\r`);
  expect(await answer).toBe(meaning);
  expect(shown()).toContain('Really? [y/N] ');
});

test('the end of the input is a no, and Ctrl-C ends the command', async () => {
  const ended = ask();
  ended.input.end();
  expect(await ended.answer).toBe(false);
  const interrupted = ask();
  interrupted.input.write('\x03');
  await expect(interrupted.answer).rejects.toThrow(Interrupted);
});
