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
