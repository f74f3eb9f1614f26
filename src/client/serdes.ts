/** Topics with types: how keys and values become bytes and come back. */
import { errorMessage, LogError } from '../core/errors.js';

/** Strings longer than this, in UTF-16 units, get a buffer of their own. */
const SCRATCH_STRING_LENGTH = 4_096;
/** A UTF-16 unit takes at most three bytes in UTF-8. */
const SCRATCH_BYTES = SCRATCH_STRING_LENGTH * 3;
/** Up to this length a loop over the characters is faster than the call into the encoder. */
const LOOP_LENGTH = 24;

/**
 * Memory that serdes may write into instead of allocating: the bytes are copied into a record batch before the next
 * record is serialized. A producer has one for keys and one for values.
 */
export class Scratch {
  readonly #buffer: Buffer = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  /** Views on the first n bytes, made when first needed: a view costs more than filling it. */
  readonly #views: (Buffer | undefined)[] = new Array(SCRATCH_BYTES + 1);

  /** UTF-8 of `text`. Valid until the next call. */
  utf8(text: string): Buffer {
    const length = text.length;
    if (length > SCRATCH_STRING_LENGTH) return Buffer.from(text, 'utf8');
    if (length <= LOOP_LENGTH && this.#writeAscii(text, length)) return this.#view(length);
    return this.#view(this.#buffer.write(text, 0, 'utf8'));
  }

  /** Writes `text` if it is ASCII throughout. */
  #writeAscii(text: string, length: number): boolean {
    const buffer = this.#buffer;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code > 127) return false;
      buffer[i] = code;
    }
    return true;
  }

  #view(length: number): Buffer {
    const known = this.#views[length];
    if (known !== undefined) return known;
    const view = this.#buffer.subarray(0, length);
    this.#views[length] = view;
    return view;
  }
}

/**
 * Converts between values and bytes. A key or value that is absent altogether (null on the wire) never reaches a serde,
 * except one made by `nullable`.
 */
export interface Serde<T> {
  /** Shown in errors, such as `json`. */
  readonly name: string;
  /**
   * Bytes of `value`; null writes a null. The bytes are copied before the next call, so they may lie in `scratch`.
   * Throw anything to refuse a value: the record fails with INVALID_RECORD.
   */
  serialize(value: T, scratch: Scratch): Uint8Array | null;
  /**
   * The value of `bytes`, a view on memory that is shared with the rest of the batch: copy what you keep for long.
   * Throw anything to refuse them: reading fails with INVALID_RECORD.
   */
  deserialize(bytes: Buffer): T;
  /** Whether null is a value. Without it, null bytes are refused with INVALID_RECORD. */
  readonly allowsNull?: boolean;
}

/** Any JSON value. `undefined`, functions and cyclic objects are refused. */
export function json<T = unknown>(): Serde<T> {
  return {
    name: 'json',
    serialize(value: T, scratch: Scratch): Uint8Array {
      // For undefined and functions JSON.stringify returns undefined, against its declared type.
      const text: string | undefined = JSON.stringify(value);
      if (text === undefined) throw new TypeError(`${typeof value} has no JSON form`);
      return scratch.utf8(text);
    },
    deserialize: (bytes: Buffer): T => JSON.parse(bytes.toString('utf8')) as T,
  };
}

/** Text as UTF-8. Lone surrogates become U+FFFD; so do bytes that are not UTF-8 on the way back. */
export function string(): Serde<string> {
  return {
    name: 'string',
    serialize(value: string, scratch: Scratch): Uint8Array {
      if (typeof value !== 'string') throw new TypeError(`it is ${describe(value)}, not a string`);
      return scratch.utf8(value);
    },
    deserialize: (bytes: Buffer): string => bytes.toString('utf8'),
  };
}

/** Bytes as they are. What is read is a view on the batch's memory. At run time any Uint8Array can be sent. */
export function bytes(): Serde<Buffer> {
  return {
    name: 'bytes',
    serialize(value: Buffer): Uint8Array {
      const given: unknown = value;
      if (!(given instanceof Uint8Array)) throw new TypeError(`it is ${describe(given)}, not a Buffer or Uint8Array`);
      return given;
    },
    deserialize: (bytes: Buffer): Buffer => bytes,
  };
}

/** `serde` and null besides: for topics whose records may have no value, such as tombstones of compacted topics. */
export function nullable<T>(serde: Serde<T>): Serde<T | null> {
  return {
    name: serde.name,
    serialize: (value: T | null, scratch: Scratch): Uint8Array | null =>
      value === null ? null : serde.serialize(value, scratch),
    deserialize: (bytes: Buffer): T => serde.deserialize(bytes),
    allowsNull: true,
  };
}

/** A topic's name and the types of its records. Says nothing about whether the topic exists. */
export interface Topic<K, V> {
  readonly name: string;
  readonly key: Serde<K>;
  readonly value: Serde<V>;
}

export interface TopicSerdes<K, V> {
  /** Default `string()`. A record without a key has the key null, whatever the serde. */
  readonly key?: Serde<K>;
  /** Default `nullable(bytes())`. */
  readonly value?: Serde<V>;
}

/**
 * Describes a topic to the client: `topic('orders', { value: json<Order>() })`. Without serdes, keys are strings and
 * values Buffers or null.
 */
export function topic<V = Buffer | null, K = string>(name: string, serdes: TopicSerdes<K, V> = {}): Topic<K, V> {
  return {
    name,
    // The type parameters have these very defaults when no serde is given.
    key: serdes.key ?? (string() as unknown as Serde<K>),
    value: serdes.value ?? (nullable(bytes()) as unknown as Serde<V>),
  };
}

/**
 * Bytes of a record's value.
 * @throws LogError INVALID_RECORD
 */
export function serializeValue<V>(topic: Topic<unknown, V>, value: V, scratch: Scratch): Uint8Array | null {
  try {
    const result = topic.value.serialize(value, scratch);
    if (result === null && topic.value.allowsNull !== true) throw new TypeError(NULL_HINT);
    return result;
  } catch (error) {
    throw unserializable('value', topic, topic.value, error);
  }
}

/**
 * Bytes of a record's key; null when there is none.
 * @throws LogError INVALID_RECORD
 */
export function serializeKey<K>(
  topic: Topic<K, unknown>,
  key: K | null | undefined,
  scratch: Scratch,
): Uint8Array | null {
  if (key === undefined || key === null) return null;
  try {
    return topic.key.serialize(key, scratch);
  } catch (error) {
    throw unserializable('key', topic, topic.key, error);
  }
}

const NULL_HINT = 'it is null; declare the topic with nullable(...) around the serde of its values to allow that';

function unserializable(
  part: string,
  topic: Topic<unknown, unknown> | { readonly name: string },
  serde: { readonly name: string },
  error: unknown,
): LogError {
  return new LogError(
    'INVALID_RECORD',
    `The ${part} of a record for topic ${topic.name} cannot be written as ${serde.name}: ${errorMessage(error)}.`,
    { metadata: { topic: topic.name }, cause: error },
  );
}

/** Where a record stands, for the message when it cannot be read. */
export interface RecordPosition {
  readonly partition: number;
  readonly offset: number;
}

/** @throws LogError INVALID_RECORD, naming the record */
export function deserializeValue<V>(topic: Topic<unknown, V>, bytes: Buffer | null, at: RecordPosition): V {
  if (bytes === null) {
    // A serde that allows null has it among its values.
    if (topic.value.allowsNull === true) return null as V;
    throw undeserializable('value', topic.name, topic.value.name, at, new TypeError(NULL_HINT));
  }
  try {
    return topic.value.deserialize(bytes);
  } catch (error) {
    throw undeserializable('value', topic.name, topic.value.name, at, error);
  }
}

/** @throws LogError INVALID_RECORD, naming the record */
export function deserializeKey<K>(topic: Topic<K, unknown>, bytes: Buffer | null, at: RecordPosition): K | null {
  if (bytes === null) return null;
  try {
    return topic.key.deserialize(bytes);
  } catch (error) {
    throw undeserializable('key', topic.name, topic.key.name, at, error);
  }
}

function undeserializable(part: string, topic: string, serde: string, at: RecordPosition, error: unknown): LogError {
  const { partition, offset } = at;
  return new LogError(
    'INVALID_RECORD',
    `The ${part} of the record at offset ${offset} of ${topic}-${partition} cannot be read as ${serde}: ` +
      `${errorMessage(error)}.`,
    { metadata: { topic, partition, offset }, cause: error },
  );
}

function describe(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : typeof value;
}
