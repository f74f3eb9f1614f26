/** Records of a topic that keeps a coordinator's state: JSON texts in UTF-8, with the version of its layout in each value. */
import * as v from 'valibot';

/** A record to write: its key and, unless it is a tombstone, its value. */
export interface StateRecord {
  readonly key: Buffer;
  readonly value: Buffer | null;
}

/** Of a later Tidelog: it is left alone. */
export const UNKNOWN_RECORD = 'unknown';

/** @param value undefined: a tombstone */
export function encodeStateRecord(
  version: number,
  key: readonly (string | number)[],
  value: object | undefined,
): StateRecord {
  return {
    key: Buffer.from(JSON.stringify(key)),
    value: value === undefined ? null : Buffer.from(JSON.stringify({ v: version, ...value })),
  };
}

/** The parts of a key and the kind that the first of them names. @throws Error saying what is wrong */
export function parseStateKey(key: Buffer): { readonly kind: string; readonly parts: unknown } {
  const parts = parseJson('key', key);
  const kind: unknown = Array.isArray(parts) ? parts[0] : undefined;
  if (typeof kind !== 'string') throw new Error(`its key is ${key.toString('utf8').slice(0, 300)}`);
  return { kind, parts };
}

/** @returns UNKNOWN_RECORD for a value of a newer version; undefined for a tombstone. @throws Error saying what is wrong */
export function parseStateValue(version: number, value: Buffer | null): unknown {
  if (value === null) return undefined;
  const contents = parseJson('value', value);
  const given = typeof contents === 'object' && contents !== null && 'v' in contents ? contents.v : undefined;
  if (typeof given !== 'number') throw new Error('its value names no version');
  return given > version ? UNKNOWN_RECORD : contents;
}

function parseJson(what: string, bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new Error(`its ${what} is not JSON`);
  }
}

/** @throws Error saying where the input is not as the schema has it */
export function parseAs<T>(schema: v.GenericSchema<unknown, T>, input: unknown): T {
  const parsed = v.safeParse(schema, input, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new Error(`${v.getDotPath(issue) ?? 'it'}: ${issue.message}`);
}
