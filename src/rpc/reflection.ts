/**
 * What server reflection tells about the services. proto-loader's own descriptors lose field names and imports, which
 * tools such as grpcurl need; these come from the compiled proto files.
 */
import type { PackageDefinition } from '@grpc/proto-loader';
import descriptor from 'protobufjs/ext/descriptor/index.js';
import { FILE_DESCRIPTOR_SET } from './descriptors.js';

/** The proto files in the form that @grpc/reflection reads: it uses nothing but `fileDescriptorProtos`. */
export function reflectedFiles(): PackageDefinition {
  const set = descriptor.FileDescriptorSet.decode(Buffer.from(FILE_DESCRIPTOR_SET, 'base64'));
  const { file } = set as unknown as { file: object[] };
  const fileDescriptorProtos = file.map((each) => Buffer.from(descriptor.FileDescriptorProto.encode(each).finish()));
  // Only that one field is read; a whole definition of a message would be made up.
  return { files: { fileDescriptorProtos } } as unknown as PackageDefinition;
}
