import { LogError } from '../core/errors.js';

const LEGAL = /^[A-Za-z0-9._-]{1,249}$/;
const INTERNAL_PREFIX = '__';

/** @throws LogError INVALID_TOPIC unless the name is legal */
export function checkTopicName(name: string): void {
  if (LEGAL.test(name) && name !== '.' && name !== '..') return;
  throw new LogError(
    'INVALID_TOPIC',
    `${JSON.stringify(name.slice(0, 300))} is not a topic name: use 1 to 249 letters, digits, dots, underscores or ` +
      'hyphens, but not "." or "..".',
    { metadata: { topic: name.slice(0, 300) } },
  );
}

/** Topics that Tidelog keeps for itself: hidden from lists, closed to direct produce. */
export function isInternal(name: string): boolean {
  return name.startsWith(INTERNAL_PREFIX);
}
