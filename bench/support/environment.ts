import { cpus, totalmem, version } from 'node:os';
import manifest from '../../package.json' with { type: 'json' };

/** What a figure depends on besides the code. */
export function environment(): Record<string, string | number> {
  const processors = cpus();
  return {
    tidelog: manifest.version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    kernel: version(),
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
  };
}
