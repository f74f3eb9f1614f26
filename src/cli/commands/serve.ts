/** `tidelog serve`: one flag for each key of the broker's configuration. */
import { type Command, Option } from 'commander';
import { BROKER_KEYS, flagOf, TOPIC_DEFAULT_KEYS, variableOf } from '../../config/broker-config.js';
import type { CommandContext } from '../program.js';

const HELP = `
Values come from, in rising order of precedence: the defaults, the file of --config (a JSON object such as
{"data.dir": "/var/lib/tidelog", "log.level": "warn"}), environment variables, flags. Unknown keys are refused.

Log lines are JSON, on standard error; what a person wants to know is on standard output. SIGTERM or SIGINT stops the
broker cleanly within 10 s, a second one at once.

Examples:
  tidelog serve --data-dir /var/lib/tidelog
  tidelog serve --listen 0.0.0.0:7171 --http 0.0.0.0:7172
  TIDELOG_LOG_LEVEL=debug tidelog serve --config tidelog.json`;

/** Options as commander names them: the words of the flag in camel case. */
type ServeOptions = Readonly<Record<string, string | undefined>>;

export function configure(command: Command, { output, environment }: CommandContext): void {
  const attributes = new Map<string, string>();
  for (const [name, key] of Object.entries(BROKER_KEYS)) {
    const description = `${key.description} Takes ${key.valid}. [${variableOf(name)}, default ${key.defaultText}]`;
    const option = new Option(`${flagOf(name)} <${name === 'data.dir' ? 'dir' : 'value'}>`, description);
    if (Object.hasOwn(TOPIC_DEFAULT_KEYS, name)) option.helpGroup('Values of topics that do not set their own:');
    attributes.set(name, option.attributeName());
    command.addOption(option);
  }
  command
    .option('--config <file>', 'A JSON file of configuration keys.')
    .addHelpText('after', HELP)
    .action(async (options: ServeOptions) => {
      const { serve } = await import('../server.js');
      const flags: Record<string, string> = {};
      for (const [name, attribute] of attributes) {
        const value = options[attribute];
        if (value !== undefined) flags[name] = value;
      }
      await serve({ flags, environment, configPath: options.config, output });
    });
}
