import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';
import { expect, test } from 'vitest';
import { PROTO_DIR } from '../../src/rpc/proto.js';

const SERVICES = ['admin_service', 'produce_service', 'fetch_service', 'group_service', 'transaction_service'];

/** Names of the interfaces and object types in these files with their fields. */
function declared(): Map<string, string[]> {
  const files = ['messages.ts', 'group-messages.ts', 'transaction-messages.ts'];
  const source = files
    .map((name) => readFileSync(new URL(`../../src/rpc/${name}`, import.meta.url), 'utf8'))
    .join('\n');
  const found = new Map<string, string[]>();
  for (const [, name = '', body = ''] of source.matchAll(/export interface (\w+) \{\n([\s\S]*?)\n\}/g)) {
    found.set(
      name,
      [...body.matchAll(/^ {2}(\w+)\??:/gm)].map((field) => field[1] ?? ''),
    );
  }
  for (const [, name = ''] of source.matchAll(/export type (\w+) = Record<string, never>;/g)) found.set(name, []);
  return found;
}

function protoTypes(): Map<string, string[]> {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => (protobuf.common.get(target) ? target : `${PROTO_DIR}/${target}`);
  root.loadSync(SERVICES.map((name) => `tidelog/v1/${name}.proto`));
  const namespace = root.lookup('tidelog.v1') as protobuf.Namespace;
  const types = namespace.nestedArray.filter((nested) => nested instanceof protobuf.Type);
  return new Map(types.map((type) => [type.name, type.fieldsArray.map((field) => field.name)]));
}

test('the message types have the messages and fields of the proto files, no more and no fewer', () => {
  const ours = declared();
  const theirs = protoTypes();
  expect(theirs.size).toBeGreaterThan(25);
  for (const [name, fields] of theirs) {
    const declaration = ours.get(name) ?? ours.get(`${name}Message`);
    expect(declaration?.toSorted(), name).toEqual(fields.toSorted());
  }
  expect(ours.size).toBe(theirs.size + 1); // and google.rpc.Status
});
