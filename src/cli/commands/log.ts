/** `tidelog log dump|verify`: looking at files, with or without a broker running on them. Changes nothing. */
import type { Command } from 'commander';
import type { CommandContext } from '../program.js';

interface DumpOptions {
  readonly records?: boolean;
}

export function configure(command: Command, { output }: CommandContext): void {
  command.addHelpText(
    'after',
    `
Examples:
  tidelog log verify ./data
  tidelog log dump ./data/logs/<topic id>-0/00000000000000000000.log --records`,
  );
  command
    .command('dump')
    .description('Print one line for each record batch of a segment file.')
    .argument('<file>', 'A .log file.')
    .option('--records', 'Print the records as well, as JSON.')
    .addHelpText('after', '\nExits with 1 where the file is damaged, truncated or no log at all.')
    .action(async (file: string, options: DumpOptions) => {
      const { dumpLogFile } = await import('../log-dump.js');
      await dumpLogFile(file, options.records ?? false, output);
    });
  command
    .command('verify')
    .description('Check every batch of a data directory.')
    .argument('<data-dir>', 'A data directory.')
    .addHelpText(
      'after',
      '\nExits with 1 where records are corrupt or missing; with 0 for a torn tail (an append that was under way when the\n' +
        'broker was killed: the next start cuts it off) and for index files that the broker will rebuild.',
    )
    .action(async (dataDir: string) => {
      const { verifyDataDir } = await import('../log-verify.js');
      await verifyDataDir(dataDir, output);
    });
}
