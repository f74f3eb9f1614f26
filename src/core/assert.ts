import { LogError } from './errors.js';

/**
 * Holds an invariant of the program itself. Not for checking input: bad input has reasons of its own.
 * @throws LogError INTERNAL when `condition` is false
 */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new LogError('INTERNAL', `Broken invariant: ${message}`);
}
