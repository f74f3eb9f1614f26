/**
 * LogError <-> gRPC status. Every error carries google.rpc.ErrorInfo (reason, domain `tidelog`, metadata) in
 * `grpc-status-details-bin`, and google.rpc.RetryInfo where waiting helps.
 */
import { status as Code, Metadata, type ServiceError } from '@grpc/grpc-js';
import protobuf, { type Type } from 'protobufjs';
import { type GrpcCodeName, isReason, LogError, type LogErrorOptions, type Reason } from '../core/errors.js';
import type { StatusMessage } from './messages.js';
import { PROTO_DIR } from './proto.js';

/** Domain of every ErrorInfo that Tidelog sends. */
export const ERROR_DOMAIN = 'tidelog';
const DETAILS_KEY = 'grpc-status-details-bin';
const TYPE_PREFIX = 'type.googleapis.com/';
/** Of the message, and of each value of the metadata; the longest of our own, the list of topic keys, is half of that. */
const MAX_TEXT_BYTES = 1024;

const root = new protobuf.Root();
root.resolvePath = (_origin, target) => (protobuf.common.get(target) ? target : `${PROTO_DIR}/${target}`);
root.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto']);

const Status: Type = root.lookupType('google.rpc.Status');
const ErrorInfo: Type = root.lookupType('google.rpc.ErrorInfo');
const RetryInfo: Type = root.lookupType('google.rpc.RetryInfo');

interface ErrorInfoFields {
  reason: string;
  domain: string;
  metadata: Record<string, string>;
}

function encode(type: Type, fields: object): Buffer {
  const bytes = type.encode(type.fromObject(fields)).finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function pack(name: string, type: Type, fields: object): { type_url: string; value: Buffer } {
  return { type_url: `${TYPE_PREFIX}google.rpc.${name}`, value: encode(type, fields) };
}

/**
 * Text for a status, which travels in headers: clients and Node.js refuse headers of more than some KiB, and grpc-js
 * throws on half a surrogate pair. What a client sent may contain both.
 */
export function statusText(text: string): string {
  const bytes = Buffer.from(text, 'utf8');
  return bytes.length <= MAX_TEXT_BYTES ? bytes.toString('utf8') : `${bytes.toString('utf8', 0, MAX_TEXT_BYTES)}...`;
}

function statusMetadata(error: LogError): Record<string, string> {
  const metadata: Record<string, string> = { outcome: error.outcome };
  for (const [key, value] of Object.entries(error.metadata)) metadata[key] = statusText(value);
  return metadata;
}

/** The error as google.rpc.Status, as it stands in responses that report several outcomes. */
export function toStatusMessage(error: LogError): StatusMessage {
  const info = { reason: error.reason, domain: ERROR_DOMAIN, metadata: statusMetadata(error) };
  const details = [pack('ErrorInfo', ErrorInfo, info)];
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000);
    const nanos = Math.round((error.retryAfterMs % 1000) * 1e6);
    details.push(pack('RetryInfo', RetryInfo, { retryDelay: { seconds, nanos } }));
  }
  return { code: Code[error.grpcCode], message: statusText(error.message), details };
}

/** What a grpc-js server handler passes to its callback, or emits as 'error' on a stream. */
export function toServiceError(error: LogError): Partial<ServiceError> {
  const message = toStatusMessage(error);
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, encode(Status, message));
  return { code: message.code, details: message.message, message: message.message, metadata };
}

/** The error that a response carries for one of its parts. */
export function fromStatusMessage(message: StatusMessage): LogError {
  const info: Partial<LogErrorOptions> & { reason?: Reason } = {};
  let options: LogErrorOptions = {};
  for (const detail of message.details) {
    if (detail.type_url === `${TYPE_PREFIX}google.rpc.ErrorInfo`) {
      const fields = ErrorInfo.toObject(ErrorInfo.decode(detail.value), { defaults: true }) as ErrorInfoFields;
      const { outcome, ...metadata } = fields.metadata;
      if (fields.domain === ERROR_DOMAIN && isReason(fields.reason)) info.reason = fields.reason;
      options = { ...options, metadata };
      if (outcome === 'none' || outcome === 'unknown') options = { ...options, outcome };
    } else if (detail.type_url === `${TYPE_PREFIX}google.rpc.RetryInfo`) {
      options = { ...options, retryAfterMs: retryDelayMs(detail.value) };
    }
  }
  return new LogError(info.reason ?? reasonOfCode(message.code), message.message, options);
}

function retryDelayMs(value: Buffer): number {
  const { retryDelay } = RetryInfo.toObject(RetryInfo.decode(value), { longs: Number, defaults: true }) as {
    retryDelay?: { seconds: number; nanos: number };
  };
  return retryDelay === undefined ? 0 : retryDelay.seconds * 1000 + retryDelay.nanos / 1e6;
}

/** Reasons for codes that come without details: from the transport, a proxy, or another server. */
const REASON_OF_CODE: Partial<Record<GrpcCodeName, Reason>> = {
  CANCELLED: 'CANCELLED',
  DEADLINE_EXCEEDED: 'REQUEST_TIMED_OUT',
  INVALID_ARGUMENT: 'INVALID_REQUEST',
  UNIMPLEMENTED: 'INVALID_REQUEST',
  RESOURCE_EXHAUSTED: 'RESOURCE_LIMIT',
  UNAVAILABLE: 'BROKER_UNAVAILABLE',
};

function reasonOfCode(code: number): Reason {
  const name = Code[code] as GrpcCodeName | undefined;
  return (name === undefined ? undefined : REASON_OF_CODE[name]) ?? 'INTERNAL';
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && typeof (error as Partial<ServiceError>).code === 'number';
}

/** Anything a grpc-js client call failed with, as a LogError. */
export function fromServiceError(error: unknown): LogError {
  if (error instanceof LogError) return error;
  if (!isServiceError(error)) return new LogError('INTERNAL', String(error), { cause: error });
  const packed = error.metadata?.get(DETAILS_KEY)[0];
  if (packed instanceof Uint8Array) return fromPackedStatus(packed, error);
  const reason = reasonOfCode(error.code);
  return new LogError(reason, error.details || error.message, { cause: error });
}

function fromPackedStatus(packed: Uint8Array, cause: ServiceError): LogError {
  try {
    const fields = Status.toObject(Status.decode(packed), { defaults: true, arrays: true }) as StatusMessage;
    return fromStatusMessage(fields);
  } catch {
    // Details that do not decode come from something other than Tidelog; the code still says what happened.
    return new LogError(reasonOfCode(cause.code), cause.details, { cause });
  }
}
