import { LogError } from '../../core/errors.js';
import type { Isolation } from '../../partition/producers/types.js';
import type { IsolationLevelName } from '../../rpc/messages.js';

/** A value that the proto files do not name comes as its number, which is none of these. */
const LEVELS: ReadonlyMap<IsolationLevelName, Isolation | undefined> = new Map([
  ['ISOLATION_LEVEL_UNSPECIFIED', undefined],
  ['ISOLATION_LEVEL_READ_UNCOMMITTED', 'read_uncommitted'],
  ['ISOLATION_LEVEL_READ_COMMITTED', 'read_committed'],
]);

/** @throws LogError INVALID_REQUEST: there is no such level */
export function toIsolation(name: IsolationLevelName, byDefault: Isolation): Isolation {
  if (LEVELS.has(name)) return LEVELS.get(name) ?? byDefault;
  throw new LogError(
    'INVALID_REQUEST',
    `isolation_level ${name} is none: it is READ_COMMITTED (2), READ_UNCOMMITTED (1) or left out.`,
  );
}
