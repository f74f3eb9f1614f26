/** Putting the broker's configuration together: defaults < file < environment < flags. */
import { resolveTopicConfig, type TopicOverrides } from '../broker/topic-config.js';
import { assertKnownKey, parseConfigValue } from '../core/config-key.js';
import { errorMessage, LogError } from '../core/errors.js';
import {
  BROKER_KEYS,
  type BrokerConfig,
  ENVIRONMENT_PREFIX,
  flagOf,
  TOPIC_DEFAULT_NAMES,
  variableOf,
} from './broker-config.js';
import { type Environment, OTHER_VARIABLES } from './environment.js';

/** A value as text, and where it was set, as a user would name the place. */
interface Setting {
  readonly value: string;
  readonly source: string;
}

type Settings = ReadonlyMap<string, Setting>;

/** A configuration file: its path as the user gave it, and its contents. */
export interface ConfigFile {
  readonly path: string;
  readonly contents: string;
}

export interface ConfigSources {
  /** Values by key (`data.dir`), from the command line. */
  readonly flags: Readonly<Record<string, string>>;
  readonly environment: Environment;
  readonly file?: ConfigFile;
}

/** What the sources come to. */
export interface LoadedConfig {
  /** The configuration in force. */
  readonly config: BrokerConfig;
  /** What was set, and not left to the defaults, for topics that do not set it themselves: by the keys of a topic. */
  readonly topicDefaults: TopicOverrides;
}

/**
 * The configuration in force.
 * @throws LogError INVALID_CONFIG naming the key, its source, the value and what would be valid; or naming an unknown
 *   key, its source and the keys there are
 */
export function loadBrokerConfig(sources: ConfigSources): LoadedConfig {
  const settings = new Map<string, Setting>([
    ...(sources.file === undefined ? [] : fileSettings(sources.file)),
    ...environmentSettings(sources.environment),
    ...flagSettings(sources.flags),
  ]);
  const config: Record<string, unknown> = {};
  for (const [name, key] of Object.entries(BROKER_KEYS)) {
    const setting = settings.get(name) ?? { value: key.defaultText, source: 'the default' };
    config[name] = from(setting.source, () => parseConfigValue(name, key, setting.value));
  }
  // BrokerConfig has exactly these keys, and each schema gives the type that BrokerConfig derives from it.
  return { config: config as BrokerConfig, topicDefaults: topicDefaults(settings) };
}

function topicDefaults(settings: Settings): TopicOverrides {
  const defaults: Record<string, string> = {};
  for (const [topicKey, name] of TOPIC_DEFAULT_NAMES) {
    const setting = settings.get(name);
    if (setting !== undefined) defaults[topicKey] = setting.value.trim();
  }
  // Each value holds by itself; two of them may contradict each other.
  resolveTopicConfig({}, defaults);
  return defaults;
}

function flagSettings(flags: Readonly<Record<string, string>>): Settings {
  const settings = new Map<string, Setting>();
  for (const [name, value] of Object.entries(flags)) {
    const source = `the flag ${flagOf(name)}`;
    from(source, () => assertKnownKey(name, BROKER_KEYS, 'the broker'));
    settings.set(name, { value, source });
  }
  return settings;
}

const NAME_OF_VARIABLE: ReadonlyMap<string, string> = new Map(
  Object.keys(BROKER_KEYS).map((name) => [variableOf(name), name]),
);

function environmentSettings(environment: Environment): Settings {
  const settings = new Map<string, Setting>();
  for (const [variable, value] of Object.entries(environment)) {
    if (value === undefined || !variable.startsWith(ENVIRONMENT_PREFIX) || OTHER_VARIABLES.includes(variable)) continue;
    const name = NAME_OF_VARIABLE.get(variable);
    if (name === undefined) throw unknownVariable(variable);
    settings.set(name, { value, source: `the environment variable ${variable}` });
  }
  return settings;
}

function unknownVariable(variable: string): LogError {
  const valid = [...NAME_OF_VARIABLE.keys(), ...OTHER_VARIABLES].join(', ');
  return new LogError(
    'INVALID_CONFIG',
    `The environment variable ${variable} is not known. Unset it, or use one of: ${valid}.`,
    { metadata: { key: variable, valid_keys: valid } },
  );
}

function fileSettings({ path, contents }: ConfigFile): Settings {
  const source = `the configuration file ${path}`;
  const settings = new Map<string, Setting>();
  for (const [name, value] of Object.entries(parseObject(path, contents))) {
    from(source, () => assertKnownKey(name, BROKER_KEYS, 'the broker'));
    settings.set(name, { value: from(source, () => scalarText(name, value)), source });
  }
  return settings;
}

function parseObject(path: string, contents: string): Readonly<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(contents);
  } catch (error) {
    throw invalidFile(path, `it is not JSON (${errorMessage(error)})`);
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw invalidFile(path, 'it is not a JSON object');
  }
  return parsed as Readonly<Record<string, unknown>>;
}

function invalidFile(path: string, why: string): LogError {
  return new LogError(
    'INVALID_CONFIG',
    `The configuration file ${path} cannot be used: ${why}. It must look like {"data.dir": "./data", "log.level": "info"}.`,
    { metadata: { path } },
  );
}

function scalarText(name: string, value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const valid = BROKER_KEYS[name]?.valid ?? 'text or a number';
  throw new LogError('INVALID_CONFIG', `${name}=${JSON.stringify(value)} is not valid: ${name} takes ${valid}.`, {
    metadata: { key: name, valid },
  });
}

/** Adds the source to what is wrong with a value. */
function from<T>(source: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof LogError)) throw error;
    throw new LogError(error.reason, `${error.message} It was set by ${source}.`, {
      metadata: { ...error.metadata, source },
      cause: error,
    });
  }
}
