/** Which answers of the broker are documented. */
import { status as Code } from '@grpc/grpc-js';
import type { LogError } from '../../src/core/errors.js';
import type { Answer } from '../support/raw-http2.js';

/** What the libraries below the broker answer by themselves, without a reason of ours. */
interface TransportAnswer {
  readonly code: number;
  readonly message: RegExp;
  readonly why: string;
}

const TRANSPORT: readonly TransportAnswer[] = [
  {
    code: Code.RESOURCE_EXHAUSTED,
    message: /^Received message (larger than max|that decompresses to a size larger than)/,
    why: 'more than twice request.max.bytes is refused by its length, before it is read',
  },
  { code: Code.UNIMPLEMENTED, message: /unsupported encoding/, why: 'a grpc-encoding: none is supported' },
  {
    code: Code.UNIMPLEMENTED,
    message: /^Received (no|a second) request message for/,
    why: 'no message, or several, where the method takes one',
  },
  { code: Code.UNIMPLEMENTED, message: /^The server does not implement the method/, why: 'no such method' },
  { code: Code.INTERNAL, message: /^Invalid grpc-timeout value/, why: 'a header of the transport that is not valid' },
  { code: Code.DEADLINE_EXCEEDED, message: /^Deadline exceeded$/, why: 'the deadline that the client gave' },
];

/** The standard health service knows NOT_FOUND for a service that it does not know. */
function isHealthNotFound(path: string, { code, message }: Answer): boolean {
  return path === '/grpc.health.v1.Health/Check' && code === Code.NOT_FOUND && message.startsWith('Health status');
}

/** What is wrong with an answer; undefined when it is OK or documented. */
export function undocumented(path: string, answer: Answer): string | undefined {
  const { code, message, error } = answer;
  if (code === undefined || code === Code.OK || isHealthNotFound(path, answer)) return undefined;
  if (error === undefined) {
    const known = TRANSPORT.some((each) => each.code === code && each.message.test(message));
    return known ? undefined : `${Code[code]} without a reason: ${message}`;
  }
  return undocumentedReason(error, code);
}

/** A defect's answer is INTERNAL; the disk of these tests has no faults. */
function undocumentedReason(error: LogError, code: number): string | undefined {
  if (error.reason === 'INTERNAL' || error.reason === 'STORAGE_ERROR' || error.reason === 'CORRUPT_LOG') {
    return `${error.reason}: ${error.message}`;
  }
  return error.grpcCode === Code[code] ? undefined : `${error.reason} comes with ${Code[code]}`;
}
