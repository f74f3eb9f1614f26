/**
 * Which test files get a process of their own. A process loads the broker and gRPC anew, 0.4 s of CPU for each file: those
 * that leave nothing behind in their process share one per worker.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const TEST_DIRECTORY = join(import.meta.dirname, '..');

/** Directories whose tests run in the process of the test. */
const SHARING = /^(batch|broker|cli|client|config|core|docs|listeners|partition|rpc|storage)\//;

/**
 * What does not go with sharing: hooks that a shared module registers once (programme, properties), modules and timers
 * that are replaced, and looking at the process as a whole.
 */
const NOT_SHARING =
  /support\/(programme|properties)\.js'|vi\.(mock|doMock|hoisted|useFakeTimers|stub\w*)\b|process\.(on|env|chdir)\b|\/proc\/self|memoryUsage|stackTraceLimit|openHandles/;

/** Patterns of the files that share, for the configuration. */
export function sharingFiles(): string[] {
  const names = readdirSync(TEST_DIRECTORY, { recursive: true, encoding: 'utf8' }).filter(
    (name) => SHARING.test(name) && name.endsWith('.test.ts'),
  );
  const sharing = names.filter((name) => !NOT_SHARING.test(readFileSync(join(TEST_DIRECTORY, name), 'utf8')));
  return sharing.map((name) => `test/${name}`);
}

/** A worker keeps its process as long as the next file shares it; the short files that do also fill up the end of a run. */
export class SharingLast extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const shares = ({ project }: TestSpecification): boolean => project.config.isolate === false;
    return [...sorted.filter((file) => !shares(file)), ...sorted.filter(shares)];
  }
}
