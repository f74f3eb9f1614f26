import { expect } from 'vitest';
import { LogError, type Reason } from '../../src/core/errors.js';

/** The LogError that `work` fails with, after checking its reason. */
export async function rejection(work: Promise<unknown> | (() => unknown), reason: Reason): Promise<LogError> {
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (error) {
    expect(error).toBeInstanceOf(LogError);
    const failure = error as LogError;
    expect(`${failure.reason}: ${failure.message}`).toContain(`${reason}: `);
    return failure;
  }
  throw new Error(`expected ${reason}, but it succeeded`);
}
