import { readFileSync, writeFileSync } from 'node:fs';
import { status as Code } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { ALL_REASONS, LogError } from '../../src/core/errors.js';
import { fromServiceError, fromStatusMessage, toServiceError, toStatusMessage } from '../../src/rpc/status-codec.js';

const DOC = new URL('../../docs/protocol.md', import.meta.url);
const TABLE = /(<!-- errors:begin[^\n]*-->\n)[\s\S]*?(<!-- errors:end -->)/;

function table(): string {
  const rows = ALL_REASONS.map((reason) => {
    const error = new LogError(reason, '');
    const kafka = error.kafkaCode < 0 ? '' : error.kafkaCode;
    const retry = error.retryable ? 'yes' : 'no';
    return `| ${reason} | ${error.grpcCode} | ${kafka} | ${retry} | ${error.outcome} |`;
  });
  return ['| reason | gRPC code | Kafka error | retry as it is | outcome |', '|---|---|---|---|---|', ...rows, ''].join(
    '\n',
  );
}

test('docs/protocol.md lists every reason as the code has it (UPDATE_DOCS=1 rewrites it)', () => {
  const text = readFileSync(DOC, 'utf8');
  const expected = text.replace(TABLE, (_all, begin: string, end: string) => `${begin}\n${table()}\n${end}`);
  if (process.env.UPDATE_DOCS !== undefined) writeFileSync(DOC, expected);
  expect(readFileSync(DOC, 'utf8')).toBe(expected);
});

test.each(ALL_REASONS)('%s survives the way over gRPC with its metadata, outcome and wait', (reason) => {
  const error = new LogError(reason, 'what happened', {
    metadata: { offset: 7 },
    retryAfterMs: 1250,
    outcome: 'unknown',
  });
  const service = Object.assign(new Error(), toServiceError(error));
  expect(service.code).toBe(Code[error.grpcCode]);
  for (const back of [fromServiceError(service), fromStatusMessage(toStatusMessage(error))]) {
    expect(back).toMatchObject({
      reason,
      message: 'what happened',
      metadata: { offset: '7' },
      outcome: 'unknown',
      retryAfterMs: 1250,
    });
  }
});

test('an error of something else than Tidelog is told by its code', () => {
  const error = Object.assign(new Error('x'), { code: Code.UNAVAILABLE, details: 'connection refused' });
  expect(fromServiceError(error)).toMatchObject({ reason: 'BROKER_UNAVAILABLE', message: 'connection refused' });
});
