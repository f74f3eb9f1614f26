import { type ServiceError, status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { callFailure } from '../../src/client/failures.js';

test('a stream that was reset to make room may have been worked on (invariant 5)', () => {
  const reset: Partial<ServiceError> = {
    code: status.RESOURCE_EXHAUSTED,
    details: 'Bandwidth exhausted or memory limit exceeded',
  };
  const failure = callFailure(Object.assign(new Error('reset'), reset));
  expect(failure).toMatchObject({ reason: 'RESOURCE_LIMIT', outcome: 'unknown', retryable: true });
});

test('a call that the broker does not know says that the broker is too old', () => {
  const details = 'The server does not implement the method /tidelog.v1.ProduceService/InitProducer';
  const failure = callFailure(Object.assign(new Error(details), { code: status.UNIMPLEMENTED, details }));
  expect(failure).toMatchObject({ reason: 'INVALID_REQUEST', outcome: 'none', retryable: false });
  expect(failure.message).toMatch(/^The broker is older than this client.*InitProducer$/);
});

test('a broker that cannot be reached is named without what only developers of gRPC need', () => {
  const details = 'No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ';
  const failure = callFailure(Object.assign(new Error(details), { code: status.UNAVAILABLE, details }));
  expect(failure.message).toMatch(/connect ECONNREFUSED 127\.0\.0\.1:1$/);
});
