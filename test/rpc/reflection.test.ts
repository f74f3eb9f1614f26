import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ReflectionService } from '@grpc/reflection';
import descriptor from 'protobufjs/ext/descriptor/index.js';
import { expect, test } from 'vitest';
import { reflectedFiles } from '../../src/rpc/reflection.js';

const ROOT = new URL('../../', import.meta.url);

test('the generated descriptors are those of the proto files (npm run generate)', () => {
  const args = ['scripts/generate-descriptors.mjs', '--print'];
  const generated = execFileSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
  expect(readFileSync(new URL('src/rpc/descriptors.ts', ROOT), 'utf8')).toBe(generated);
});

test('reflection keeps the field names and imports of the proto files', () => {
  const { files } = reflectedFiles() as unknown as { files: { fileDescriptorProtos: Buffer[] } };
  const decoded = files.fileDescriptorProtos.map(
    (bytes) =>
      descriptor.FileDescriptorProto.decode(bytes) as unknown as {
        name: string;
        dependency: string[];
        messageType: { name: string; field: { name: string; typeName: string }[] }[];
      },
  );
  const produce = decoded.find((file) => file.name === 'tidelog/v1/produce_service.proto');
  expect(produce?.dependency).toEqual(['google/rpc/status.proto', 'tidelog/v1/record.proto']);
  const result = produce?.messageType.find((message) => message.name === 'ProduceStreamResult');
  expect(result?.field.map((field) => field.name)).toEqual(['correlation_id', 'response', 'error']);
  expect(result?.field[2]?.typeName).toBe('.google.rpc.Status');
});

test('the reflection service takes them', () => {
  const added: object[] = [];
  new ReflectionService(reflectedFiles()).addToServer({ addService: (service: object) => added.push(service) });
  expect(added.length).toBeGreaterThan(0);
});
