/** Holds the layers of the design: who may import whom, and who may touch time, chance, disk and environment. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

const ROOT = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..');
const SRC = path.join(ROOT, 'src');

interface SourceFile {
  /** Relative to src/, with forward slashes. */
  readonly name: string;
  readonly text: string;
  readonly imports: readonly string[];
}

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s[^'";]*?from\s*'([^']+)'|import\s*\(\s*'([^']+)'\s*\)|(?:^|\n)\s*import\s+'([^']+)'/g;

function importsOf(text: string): string[] {
  return [...text.matchAll(IMPORT)].map((match) => match[1] ?? match[2] ?? match[3] ?? '');
}

function load(): SourceFile[] {
  const names = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((name) => /\.c?ts$/.test(name));
  return names.map((name) => {
    const text = readFileSync(path.join(SRC, name), 'utf8');
    const imports = importsOf(text).map((target) => {
      if (!target.startsWith('.')) return target;
      return `src/${path.posix.normalize(path.posix.join(path.posix.dirname(name), target))}`;
    });
    return { name, text, imports };
  });
}

const files = load();

/** Imports of `from` (a folder or file below src/) that are not allowed, as `file -> import`. */
function forbidden(from: RegExp, isForbidden: (target: string, file: string) => boolean): string[] {
  return files
    .filter((file) => from.test(file.name))
    .flatMap((file) =>
      file.imports.filter((target) => isForbidden(target, file.name)).map((t) => `${file.name} -> ${t}`),
    );
}

const into = (...folders: string[]): ((target: string) => boolean) => {
  return (target) => folders.some((folder) => target === `src/${folder}.js` || target.startsWith(`src/${folder}/`));
};

test('every source file is seen by these rules', () => {
  expect(files.length).toBeGreaterThan(40);
  expect(files.flatMap((file) => file.imports).length).toBeGreaterThan(150);
});

test('core imports nothing of ours', () => {
  expect(forbidden(/^core\//, (target) => target.startsWith('src/') && !into('core')(target))).toEqual([]);
});

const LAYERS = ['core', 'batch', 'storage', 'partition', 'broker', 'listeners', 'cli'];

test.each(LAYERS.map((layer, index) => [layer, LAYERS.slice(index + 1)] as const))(
  '%s imports no layer above it',
  (layer, above) => {
    const up = into(...above);
    expect(forbidden(new RegExp(`^${layer}/`), up)).toEqual([]);
  },
);

test('partition and broker know neither the network nor the disk nor a concrete engine', () => {
  const network = (target: string): boolean =>
    target.startsWith('@grpc/') || target === 'node:fs' || target === 'node:fs/promises' || target === 'node:http';
  const rooms = into('listeners', 'rpc', 'storage/local', 'storage/memory', 'client', 'cli', 'config');
  expect(forbidden(/^(partition|broker)\//, (target) => network(target) || rooms(target))).toEqual([]);
});

test('the client knows nothing of the broker side', () => {
  const rooms = into('storage', 'partition', 'broker', 'listeners', 'config', 'cli');
  expect(forbidden(/^(client\/|index\.ts$)/, rooms)).toEqual([]);
});

test('rpc stands on core alone', () => {
  expect(forbidden(/^rpc\//, (target) => target.startsWith('src/') && !into('core', 'rpc')(target))).toEqual([]);
});

test('the listeners never import each other', () => {
  expect(forbidden(/^listeners\/grpc\//, into('listeners/http', 'listeners/kafka'))).toEqual([]);
  expect(forbidden(/^listeners\/http\//, into('listeners/grpc', 'listeners/kafka'))).toEqual([]);
});

test('storage engines never import each other, and the seam imports no engine', () => {
  expect(forbidden(/^storage\/local\//, into('storage/memory'))).toEqual([]);
  expect(forbidden(/^storage\/memory\//, into('storage/local'))).toEqual([]);
  expect(forbidden(/^storage\/engine\.ts$/, into('storage'))).toEqual([]);
});

test('only the composition root and the embedding entry name a concrete engine', () => {
  const engines = into('storage/local/engine', 'storage/memory/engine');
  const elsewhere = forbidden(/^(?!storage\/|cli\/server\.ts$|broker\.ts$)/, engines);
  expect(elsewhere).toEqual([]);
});

/** Files other than `allowed` whose code (comments aside) matches `pattern`. */
function users(pattern: RegExp, allowed: RegExp): string[] {
  return files
    .filter((file) => !allowed.test(file.name))
    .filter((file) => pattern.test(file.text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')))
    .map((file) => file.name);
}

test('only core/clock reads time', () => {
  const time = /\bDate\.now\(|\bnew Date\(\)|\bperformance\.now\(|\bprocess\.hrtime\b|\bsetTimeout\(|\bsetInterval\(/;
  expect(users(time, /^core\/clock\.ts$/)).toEqual([]);
});

test('only core/random draws random numbers', () => {
  expect(users(/\bMath\.random\(|\brandomBytes\b|\brandomUUID\b|\brandomInt\b/, /^core\/random\.ts$/)).toEqual([]);
});

test('only storage/local/fs.ts touches node:fs', () => {
  // config/ reads the configuration file, and the command line's own input and output files are the user's.
  const disk = (target: string): boolean => /^(?:node:)?fs(?:\/promises)?$/.test(target);
  expect(forbidden(/^(?!storage\/local\/fs\.ts$|config\/|cli\/)/, disk)).toEqual([]);
});

test('only config/ reads the environment and argv', () => {
  // The launcher sets the size of the thread pool, which must happen before anything else is loaded.
  expect(users(/\bprocess\.(?:env|argv)\b/, /^(config\/|cli\/tidelog\.cts$)/)).toEqual([]);
});
