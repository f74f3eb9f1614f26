// Compiles proto/ into src/rpc/descriptors.ts, from which server reflection answers. Run: npm run generate
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const set = execFileSync('npx', ['buf', 'build', 'proto', '--exclude-source-info', '-o', '-#format=binpb'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
const lines = set.toString('base64').match(/.{1,100}/g);
const text = `// Generated from proto/ by \`npm run generate\`; a test holds it against the proto files.

/** The proto files as an encoded google.protobuf.FileDescriptorSet, in base64. */
export const FILE_DESCRIPTOR_SET: string = [
${lines.map((line) => `  '${line}',`).join('\n')}
].join('');
`;
if (process.argv.includes('--print')) process.stdout.write(text);
else writeFileSync(new URL('../src/rpc/descriptors.ts', import.meta.url), text);
