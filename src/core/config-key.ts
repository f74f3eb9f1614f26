/**
 * Definitions of configuration values, for topics and for the broker: one list of keys gives the parsing, the
 * checks, the help text and the table in the documentation. Values are text everywhere until they are parsed here.
 */
import * as v from 'valibot';
import { LogError } from './errors.js';

/** One configuration key. `T` is what its text parses to. */
export interface ConfigKey<T> {
  readonly schema: v.GenericSchema<string, T>;
  /** As a user would write it. */
  readonly defaultText: string;
  /** What a valid value is, for error messages and documentation: `a whole number from 1 to 10`. */
  readonly valid: string;
  readonly description: string;
}

export type ConfigKeys = Readonly<Record<string, ConfigKey<unknown>>>;

/** A whole number in [min, max]. */
export function integer(defaultValue: number, min: number, max: number, description: string): ConfigKey<number> {
  return {
    schema: v.pipe(
      v.string(),
      v.trim(),
      v.regex(/^-?\d+$/),
      v.transform(Number),
      v.safeInteger(),
      v.minValue(min),
      v.maxValue(max),
    ),
    defaultText: String(defaultValue),
    valid: `a whole number from ${min} to ${max}`,
    description,
  };
}

/** A number in [min, max], with a decimal point or without. */
export function decimal(defaultValue: number, min: number, max: number, description: string): ConfigKey<number> {
  return {
    schema: v.pipe(
      v.string(),
      v.trim(),
      v.regex(/^\d+(\.\d+)?$/),
      v.transform(Number),
      v.minValue(min),
      v.maxValue(max),
    ),
    defaultText: String(defaultValue),
    valid: `a number from ${min} to ${max}`,
    description,
  };
}

/** One or several of the given words, separated by commas. */
export function someOf<const T extends string>(
  defaultWords: readonly T[],
  words: readonly T[],
  description: string,
): ConfigKey<ReadonlySet<T>> {
  return {
    schema: v.pipe(
      v.string(),
      v.transform((value) => value.split(',').map((word) => word.trim())),
      v.array(v.picklist(words)),
      v.transform((chosen) => new Set(chosen)),
    ),
    defaultText: defaultWords.join(','),
    valid: `one or several of ${words.join(', ')}, separated by commas`,
    description,
  };
}

/** One of the given words. */
export function oneOf<const T extends string>(defaultValue: T, words: readonly T[], description: string): ConfigKey<T> {
  return {
    schema: v.picklist(words),
    defaultText: defaultValue,
    valid: words.length === 1 ? `only ${words[0]}` : `one of ${words.join(', ')}`,
    description,
  };
}

/** Text as it is, not empty. */
export function text(defaultValue: string, valid: string, description: string): ConfigKey<string> {
  return { schema: v.pipe(v.string(), v.nonEmpty()), defaultText: defaultValue, valid, description };
}

const ADDRESS = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s[\]]+)):(\d{1,5})$/;
const MAX_PORT = 65535;

/** A host and a port, parsed from `HOST:PORT` or `[IPV6]:PORT`. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** The address in `HOST:PORT` form, undefined when `value` is not one. */
export function parseAddress(value: string): Address | undefined {
  const match = ADDRESS.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host === undefined || port > MAX_PORT ? undefined : { host, port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A listening address. Port 0 lets the system choose. */
export function address(defaultValue: string, description: string): ConfigKey<Address> {
  return {
    schema: v.pipe(
      v.string(),
      v.check((value) => parseAddress(value) !== undefined),
      v.transform((value) => parseAddress(value) as Address),
    ),
    defaultText: defaultValue,
    valid: 'HOST:PORT, as in 127.0.0.1:7171 or [::1]:7171',
    description,
  };
}

/**
 * Parses one value.
 * @throws LogError INVALID_CONFIG naming the key, the value and what would be valid
 */
export function parseConfigValue<T>(name: string, key: ConfigKey<T>, value: string): T {
  const parsed = v.safeParse(key.schema, value);
  if (parsed.success) return parsed.output;
  throw new LogError('INVALID_CONFIG', `${name}=${value} is not valid: ${name} takes ${key.valid}.`, {
    metadata: { key: name, value, valid: key.valid },
  });
}

/** @throws LogError INVALID_CONFIG listing the keys there are, unless `name` is one of them */
export function assertKnownKey(name: string, keys: ConfigKeys, of: string): void {
  if (Object.hasOwn(keys, name)) return;
  const valid = Object.keys(keys).join(', ');
  throw new LogError(
    'INVALID_CONFIG',
    `${JSON.stringify(name)} is not a configuration key of ${of}. Valid keys: ${valid}.`,
    {
      metadata: { key: name, valid_keys: valid },
    },
  );
}
