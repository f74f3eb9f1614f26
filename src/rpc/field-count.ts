/**
 * Counts the fields of a request before it is decoded. Two bytes on the wire can become an object of a hundred, so that
 * the size of a request alone bounds neither the memory nor the time that decoding it takes.
 */
import protobuf, { type Type } from 'protobufjs';
import { LogError } from '../core/errors.js';
import { PROTO_DIR, SERVICE_FILES } from './proto.js';
import { WireReader } from './wire.js';

/** Fields and elements of one request, those of nested messages included. */
export const MAX_REQUEST_FIELDS = 100_000;

/** What has to be known of a message type to walk it. */
interface Shape {
  /** The fields that hold messages. */
  readonly messages: Map<number, Shape>;
  /** Repeated numbers: one length-delimited field holds many. */
  readonly numbers: Set<number>;
}

const ENTRY: Shape = { messages: new Map(), numbers: new Set() };

const root = new protobuf.Root();
root.resolvePath = (_origin, target): string => (protobuf.common.get(target) ? target : `${PROTO_DIR}/${target}`);
root.loadSync([...SERVICE_FILES]);

const shapes = new Map<Type, Shape>();

function shapeOf(type: Type): Shape {
  const known = shapes.get(type);
  if (known !== undefined) return known;
  const shape: Shape = { messages: new Map(), numbers: new Set() };
  shapes.set(type, shape);
  for (const field of type.fieldsArray) {
    const { id, map, repeated, resolvedType } = field.resolve();
    if (map) shape.messages.set(id, ENTRY);
    else if (resolvedType instanceof protobuf.Type) shape.messages.set(id, shapeOf(resolvedType));
    else if (repeated && field.type !== 'string' && field.type !== 'bytes') shape.numbers.add(id);
  }
  return shape;
}

/** A function that refuses requests of the method with too many fields. @param path `/package.Service/Method` */
export function fieldLimiter(path: string): (bytes: Buffer) => void {
  const [service, name] = path.slice(1).split('/') as [string, string];
  const method = root.lookupService(service).methods[name]?.resolve();
  if (!(method instanceof protobuf.Method) || method.resolvedRequestType === null) throw new Error(`no method ${path}`);
  const shape = shapeOf(method.resolvedRequestType);
  return (bytes) => {
    countFields(new WireReader(bytes), shape, MAX_REQUEST_FIELDS);
  };
}

/**
 * Returns how many more there may be.
 * @throws LogError MESSAGE_TOO_LARGE for more than `limit`, INVALID_REQUEST for what is not protobuf
 */
function countFields(reader: WireReader, shape: Shape, limit: number): number {
  let left = limit;
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    left--;
    const nested = shape.messages.get(field);
    if (nested !== undefined) left = countFields(reader.message(), nested, left);
    else if (shape.numbers.has(field)) left -= reader.skip();
    else reader.skip();
    if (left < 0) throw tooManyFields();
  }
  return left;
}

function tooManyFields(): LogError {
  return new LogError(
    'MESSAGE_TOO_LARGE',
    `The request has more than ${MAX_REQUEST_FIELDS} fields and list elements. Send several smaller ones.`,
    { metadata: { max_request_fields: MAX_REQUEST_FIELDS } },
  );
}
