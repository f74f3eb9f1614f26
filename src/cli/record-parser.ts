/**
 * Lines of input as records.
 *
 *     lines   [key separator] value
 *     json    {"key", "value", "headers", "timestamp", "partition"}, all but the value optional; what
 *             `tidelog consume --format json` prints is accepted as it is
 *
 * In JSON, text stands for its UTF-8 bytes, `keyBase64` and `valueBase64` for bytes that are none. A value that is an
 * object, an array, a number or a boolean is written as compact JSON; null is a null value.
 */
import { isUtf8 } from 'node:buffer';
import type { HeadersInput, RecordInput } from '../client/record-input.js';
import { parseTime } from './arguments.js';
import { InputError } from './input.js';

export type CliRecord = RecordInput<Buffer, Buffer | null>;

/** The record of a line; undefined for a line without one. Throws a plain Error that says what is wrong with the line. */
export type RecordParser = (line: Buffer) => CliRecord | undefined;

/** A whole line as the value, or key and value around the first separator. */
export function linesParser(separator: string | undefined): RecordParser {
  if (separator === undefined) return (value) => ({ value });
  const bytes = Buffer.from(separator);
  return (line) => {
    const at = line.indexOf(bytes);
    if (at < 0) throw new InputError(`it does not contain the key separator ${JSON.stringify(separator)}`);
    return { key: line.subarray(0, at), value: line.subarray(at + bytes.length) };
  };
}

type JsonObject = Readonly<Record<string, unknown>>;

/** Fields of a record, and those that `consume` prints besides: where the record was read. */
const FIELDS: ReadonlySet<string> = new Set([
  'key',
  'keyBase64',
  'value',
  'valueBase64',
  'headers',
  'timestamp',
  'partition',
  'topic',
  'offset',
]);

/** One JSON object a line; blank lines are skipped. */
export function parseJsonRecord(line: Buffer): CliRecord | undefined {
  if (!isUtf8(line)) throw new InputError('it is not UTF-8');
  const text = line.toString('utf8').trim();
  if (text === '') return undefined;
  const object = parseObject(text);
  for (const field of Object.keys(object)) {
    if (!FIELDS.has(field)) throw new InputError(`it has an unknown field ${JSON.stringify(field)}`);
  }
  const value = bytesOf(object, 'value');
  if (value === undefined) throw new InputError('it has no "value"');
  const { headers, timestamp, partition } = object;
  return {
    key: bytesOf(object, 'key') ?? null,
    value,
    ...(headers === undefined || headers === null ? {} : { headers: headersOf(headers) }),
    ...(timestamp === undefined || timestamp === null ? {} : { timestampMs: timestampOf(timestamp) }),
    ...(partition === undefined || partition === null ? {} : { partition: partitionOf(partition) }),
  };
}

function parseObject(text: string): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new InputError('it is not JSON');
  }
  if (isObject(parsed)) return parsed;
  throw new InputError('it is not a JSON object such as {"key": "u1", "value": "..."}');
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Bytes of `name` or `nameBase64`; undefined when neither is there. */
function bytesOf(object: JsonObject, name: string): Buffer | null | undefined {
  const base64 = object[`${name}Base64`];
  if (base64 !== undefined) return base64Bytes(`${name}Base64`, base64);
  const value = object[name];
  if (value === undefined || value === null) return value;
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

function base64Bytes(name: string, value: unknown): Buffer {
  if (typeof value === 'string' && value.length % 4 === 0 && BASE64.test(value)) return Buffer.from(value, 'base64');
  throw new InputError(`its ${name} is not Base64`);
}

/** `{"name": "value"}`, or `[{"key", "value"}]` where names repeat. */
function headersOf(headers: unknown): HeadersInput {
  if (Array.isArray(headers)) return headers.map((header: unknown) => headerOf(header));
  if (!isObject(headers)) throw new InputError('its headers are neither an object nor an array');
  return Object.keys(headers).map((key) => ({ key, value: bytesOf({ value: headers[key] }, 'value') ?? null }));
}

function headerOf(header: unknown): { readonly key: string; readonly value: Buffer | null } {
  if (!isObject(header) || typeof header.key !== 'string') throw new InputError('a header has no "key"');
  return { key: header.key, value: bytesOf(header, 'value') ?? null };
}

function timestampOf(value: unknown): number {
  const time = typeof value === 'string' ? parseTime(value)?.getTime() : value;
  if (typeof time === 'number' && Number.isSafeInteger(time) && time >= 0) return time;
  throw new InputError('its timestamp is neither an ISO time nor a whole number of ms since 1970');
}

function partitionOf(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new InputError('its partition is not a whole number');
}
