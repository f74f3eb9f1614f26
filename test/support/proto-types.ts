/** The message types of the proto files, to make requests by hand. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import protobuf, { type Root } from 'protobufjs';
import { PROTO_DIR } from '../../src/rpc/proto.js';

/** Absolute paths of the proto files in a folder and below it. */
export function protoFilesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.proto'))
    .map((name) => path.join(directory, name));
}

/** @param files absolute paths; what they import may lie in the folder of the shipped ones */
export function loadTypes(files: readonly string[]): Root {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) =>
    path.isAbsolute(target) || protobuf.common.get(target) !== null ? target : path.join(PROTO_DIR, target);
  return root.loadSync([...files]);
}
