/** Parsing and checking of option values: what is wrong with one is wrong usage. */
import { InvalidArgumentError, Option } from 'commander';
import { BROKER_VARIABLE, type Environment } from '../config/environment.js';
import { parseAddress } from '../core/config-key.js';
import { UsageError } from './failure.js';

const DEFAULT_BROKER = '127.0.0.1:7171';

/** The option `--broker`, the same for all client commands. */
export function brokerOption(): Option {
  return new Option('--broker <host:port>', `The broker. [${BROKER_VARIABLE}, default ${DEFAULT_BROKER}]`).argParser(
    (value: string) => checkedAddress(value),
  );
}

/** The broker's address: of the flag, else of the environment, else the default. */
export function brokerAddress(flag: string | undefined, environment: Environment): string {
  const value = environment[BROKER_VARIABLE];
  if (flag !== undefined || value === undefined) return flag ?? DEFAULT_BROKER;
  if (parseAddress(value) !== undefined) return value;
  throw new UsageError(`the environment variable ${BROKER_VARIABLE}=${value} is not valid: it takes HOST:PORT.`);
}

function checkedAddress(value: string): string {
  if (parseAddress(value) === undefined) throw new InvalidArgumentError('It takes HOST:PORT, as in 127.0.0.1:7171.');
  return value;
}

/** A parser of whole numbers from `min`. */
export function wholeNumber(min: number): (value: string) => number {
  return (value) => {
    const parsed = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isSafeInteger(parsed) && parsed >= min) return parsed;
    throw new InvalidArgumentError(`It takes a whole number of at least ${min}.`);
  };
}

/** A parser that collects the values of an option that may be repeated. */
export function repeated<T>(parse: (value: string) => T): (value: string, before: readonly T[] | undefined) => T[] {
  return (value, before) => [...(before ?? []), parse(value)];
}

/** A `key=value` pair; the value may hold further equals signs. */
export function keyValue(value: string): readonly [string, string] {
  const at = value.indexOf('=');
  if (at > 0) return [value.slice(0, at), value.slice(at + 1)];
  throw new InvalidArgumentError('It takes key=value, as in segment.bytes=1048576.');
}

/** A date, or a date and a time, of ISO 8601; without a zone it is UTC, as in everything that is printed. */
const ISO_TIME = /^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/i;

/** The time that `value` names; undefined when it names none. */
export function parseTime(value: string): Date | undefined {
  const match = ISO_TIME.exec(value);
  if (match === null) return undefined;
  const hasTime = value.length > 'YYYY-MM-DD'.length;
  const time = new Date(hasTime && match[1] === undefined ? `${value}Z` : value);
  return Number.isNaN(time.getTime()) ? undefined : time;
}

/** A parser of one of `words`, an offset or a time. */
export function position<const T extends string>(words: readonly T[]): (value: string) => T | number | Date {
  return (value) => {
    const word = words.find((known) => known === value);
    if (word !== undefined) return word;
    const parsed = /^\d+$/.test(value) ? Number(value) : parseTime(value);
    if (parsed instanceof Date || (parsed !== undefined && Number.isSafeInteger(parsed))) return parsed;
    throw new InvalidArgumentError(
      `It takes ${words.join(', ')}, an offset, or a time such as 2026-01-31T12:00:00Z (UTC where no zone is given).`,
    );
  };
}
