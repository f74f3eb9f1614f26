/** What surrounds the process: the only place that reads environment variables and command-line arguments. */

/** Environment variables, or what stands for them in a test. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The broker that client commands talk to, unless `--broker` says otherwise. */
export const BROKER_VARIABLE = 'TIDELOG_BROKER';

/** Variables with our prefix that are no configuration of the broker. */
export const OTHER_VARIABLES: readonly string[] = [BROKER_VARIABLE];

export function processEnvironment(): Environment {
  return process.env;
}

/** Arguments of the command line, without the interpreter and the script. */
export function processArguments(): readonly string[] {
  return process.argv.slice(2);
}
