/** What `npm pack` gives: installed in another project, it works - dist, types, proto files, command and README example. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RunningBroker, startBroker } from '../../src/broker.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
let project: string;
let broker: RunningBroker;

interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly bin: Readonly<Record<string, string>>;
}

function installed(...names: string[]): string {
  return path.join(project, 'node_modules', ...names);
}

/**
 * Installs the packed files and, by links, exactly the packages that they declare: whatever else the sources import
 * would not be found. Without the network, unlike `npm install`.
 */
async function install(): Promise<void> {
  const { stdout } = await run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', project], {
    cwd: ROOT,
  });
  const [packed] = JSON.parse(stdout) as { filename: string }[];
  await run('tar', ['-xzf', packed?.filename ?? ''], { cwd: project });
  mkdirSync(installed(), { recursive: true });
  cpSync(path.join(project, 'package'), installed('tidelog'), { recursive: true });
  const manifest = JSON.parse(readFileSync(installed('tidelog', 'package.json'), 'utf8')) as Manifest;
  for (const name of Object.keys(manifest.dependencies)) link(name);
  writeFileSync(path.join(project, 'package.json'), '{"type": "module"}');
}

function link(name: string): void {
  mkdirSync(path.dirname(installed(name)), { recursive: true });
  symlinkSync(path.join(ROOT, 'node_modules', name), installed(name));
}

beforeAll(async () => {
  project = mkdtempSync(path.join(tmpdir(), 'tidelog-package-'));
  await install();
  broker = await startBroker({ storage: 'memory' });
}, 60_000);

afterAll(async () => {
  await broker.close();
  rmSync(project, { recursive: true, force: true });
});

async function runScript(name: string, source: string): Promise<string> {
  writeFileSync(path.join(project, name), source);
  const { stdout } = await run(process.execPath, [name], { cwd: project });
  return stdout;
}

test('the SDK and the embedded broker work from another project', async () => {
  const output = await runScript(
    'use.js',
    `import { connect, topic, json } from 'tidelog';
     import { startBroker } from 'tidelog/broker';
     const broker = await startBroker({ storage: 'memory' });
     const client = await connect(broker.address);
     await client.admin.createTopic({ name: 't', partitions: 2 });
     const to = topic('t', { value: json() });
     const producer = client.producer({ compression: 'zstd' });
     await producer.sendMany(to, Array.from({ length: 100 }, (_, n) => ({ key: 'k', value: { n } })));
     let sum = 0;
     for await (const record of client.read(to, { from: 'earliest', to: 'end' })) sum += record.value.n;
     console.log(sum);
     await producer.close();
     await client.close();
     await broker.close();`,
  );
  expect(output.trim()).toBe('4950');
});

test('the proto files are there for other languages', () => {
  expect(readFileSync(installed('tidelog', 'proto/tidelog/v1/produce_service.proto'), 'utf8')).toContain(
    'ProduceStream',
  );
});

test('the command runs', async () => {
  const manifest = JSON.parse(readFileSync(installed('tidelog', 'package.json'), 'utf8')) as Manifest;
  const { stdout } = await run(process.execPath, [installed('tidelog', manifest.bin.tidelog ?? ''), 'version']);
  expect(stdout).toContain(manifest.version);
});

test('the example of the README compiles against the shipped types and does what it says', async () => {
  const readme = readFileSync(path.join(ROOT, 'README.md'), 'utf8');
  const example = /<!-- example:begin[^\n]*-->\n```ts\n([\s\S]*?)```/.exec(readme)?.[1];
  if (example === undefined) throw new Error('README.md has no example');
  expect(
    example
      .trim()
      .split('\n')
      .filter((line) => line.trim() !== '').length,
  ).toBeLessThanOrEqual(20);
  writeFileSync(path.join(project, 'example.ts'), example.replace('127.0.0.1:7171', broker.address));
  writeFileSync(
    path.join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'ES2022',
        lib: ['ES2023', 'ESNext.Disposable'],
        module: 'NodeNext',
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        typeRoots: [path.join(ROOT, 'node_modules', '@types')],
        types: ['node'],
      },
      files: ['example.ts'],
    }),
  );
  const { stdout: complaints } = await run(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc')], {
    cwd: project,
  }).catch((error: { stdout: string }) => error);
  expect(complaints).toBe('');
  const { stdout } = await run(process.execPath, ['example.js'], { cwd: project });
  expect(stdout).toMatch(/^durable at partition \d, offset 0\n/);
  expect(stdout).toContain(' u1 999');
  expect(stdout).toContain(' u2 1200');
});
