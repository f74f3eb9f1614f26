/** Protobuf fields as no honest client would send them, by the descriptor of the message. */
import type { Field, Type } from 'protobufjs';

export type Below = (limit: number) => number;

const WIRE_VARINT = 0;
const WIRE_FIXED64 = 1;
const WIRE_BYTES = 2;
const WIRE_GROUP = 3;
const WIRE_FIXED32 = 5;

/** Ends of the ranges of int32, of the safe integers and of int64, as 64 bits. */
const NUMBERS: readonly bigint[] = [
  0n,
  1n,
  -1n,
  255n,
  65_536n,
  2n ** 31n - 1n,
  2n ** 31n,
  -(2n ** 31n),
  2n ** 53n - 1n,
  2n ** 53n,
  -(2n ** 53n),
  2n ** 63n - 1n,
  -(2n ** 63n),
];

const STRINGS: readonly Buffer[] = [
  Buffer.alloc(0),
  Buffer.from('\0'),
  Buffer.from('a'.repeat(249)),
  Buffer.from('a'.repeat(250)),
  Buffer.from('ü'.repeat(20_000)),
  Buffer.from('../../etc'),
  Buffer.from('__proto__'),
  Buffer.from('constructor'),
  Buffer.from('line\r\nbreak'),
  Buffer.from('%zz%00'),
  // Not UTF-8: a lone continuation byte, a number that is too long, half of a surrogate pair, a sequence cut short.
  Buffer.from([0x80]),
  Buffer.from([0xc0, 0x80]),
  Buffer.from([0xed, 0xa0, 0x80]),
  Buffer.from([0xf0, 0x9f]),
  Buffer.from([0xff, 0xfe, 0xfd]),
];

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

function tag(field: number, wireType: number): Buffer {
  return varint((BigInt(field) << 3n) | BigInt(wireType));
}

/** A length-delimited field. */
export function bytesField(field: number, value: Uint8Array): Buffer {
  return Buffer.concat([tag(field, WIRE_BYTES), varint(BigInt(value.length)), value]);
}

function numberField(field: number, value: bigint): Buffer {
  return Buffer.concat([tag(field, WIRE_VARINT), varint(value)]);
}

function oneOf<T>(values: readonly T[], below: Below): T {
  return values[below(values.length)]!;
}

/** Of a map, the entry's key and value are its fields 1 and 2; both are strings in this API. */
function mapEntry(field: Field, below: Below): Buffer {
  const entry = Buffer.concat([bytesField(1, oneOf(STRINGS, below)), bytesField(2, oneOf(STRINGS, below))]);
  return bytesField(field.id, entry);
}

function oddValue(field: Field, below: Below): Buffer {
  const { resolvedType } = field.resolve();
  if (field.map) return mapEntry(field, below);
  if (resolvedType !== null && 'fieldsArray' in resolvedType) {
    return bytesField(field.id, below(4) === 0 ? Buffer.alloc(0) : oddField(resolvedType, below));
  }
  if (field.type === 'string' || field.type === 'bytes') return bytesField(field.id, oneOf(STRINGS, below));
  return numberField(field.id, oneOf(NUMBERS, below));
}

function wrongWireType(field: Field, below: Below): Buffer {
  const wireType = below(8);
  return Buffer.concat([tag(field.id, wireType), Buffer.alloc(below(12), below(256))]);
}

function unknownField(below: Below): Buffer {
  const field = oneOf([0, 15, 16, 19_000, 2 ** 29 - 1], below);
  const kind = below(4);
  if (kind === 0) return numberField(field, oneOf(NUMBERS, below));
  if (kind === 1) return bytesField(field, Buffer.alloc(below(300), 0x0a));
  if (kind === 2) return Buffer.concat([tag(field, WIRE_FIXED64), Buffer.alloc(8)]);
  return Buffer.concat([tag(field, WIRE_FIXED32), Buffer.alloc(4)]);
}

/** Groups within groups that never end, or a field in a field in a field. */
function deepNesting(field: Field, below: Below): Buffer {
  const depth = 1 + below(3_000);
  if (below(2) === 0) return Buffer.concat(Array.from({ length: depth }, () => tag(field.id, WIRE_GROUP)));
  let nested: Buffer = Buffer.alloc(0);
  for (let level = 0; level < Math.min(depth, 200); level++) nested = bytesField(field.id, nested);
  return nested;
}

/** A field of `type`, or one that it does not have, with a value that is unlikely or wrong. */
export function oddField(type: Type, below: Below): Buffer {
  const fields = type.fieldsArray;
  if (fields.length === 0) return unknownField(below);
  const field = oneOf(fields, below);
  const kind = below(10);
  if (kind < 5) return oddValue(field, below);
  if (kind === 5) return wrongWireType(field, below);
  if (kind === 6) return unknownField(below);
  if (kind === 7) return deepNesting(field, below);
  if (kind === 8) return bytesField(field.id, Buffer.from(Array.from({ length: below(40) }, () => below(256))));
  const one = oddValue(field, below);
  const copies = Math.min(1 + below(2_000), Math.ceil(65_536 / one.length));
  return Buffer.concat(Array.from({ length: copies }, () => one));
}

/** The numbers of the fields that lead to every field of a message type, through the messages in it. */
function fieldPaths(type: Type): number[][] {
  return type.fieldsArray.flatMap((field) => {
    const { resolvedType, id } = field.resolve();
    if (field.map || resolvedType === null || !('fieldsArray' in resolvedType)) return [[id]];
    return [[id], ...fieldPaths(resolvedType).map((path) => [id, ...path])];
  });
}

/** Requests that are much larger in memory than on the wire: for every field of the type, `count` empty ones of it. */
export function inflatedRequests(type: Type, count: number): Buffer[] {
  return [[15], ...fieldPaths(type)].flatMap((path) => {
    const last = path.at(-1)!;
    const many = [bytesField(last, Buffer.alloc(0)), numberField(last, 0n)];
    return many.map((one) => {
      const inner = Buffer.alloc(count * one.length, one);
      return path.slice(0, -1).reduceRight<Buffer>((nested, field) => bytesField(field, nested), inner);
    });
  });
}
