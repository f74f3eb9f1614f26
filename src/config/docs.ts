/** The tables of keys in the documentation, made from the keys themselves. */
import type { ConfigKeys } from '../core/config-key.js';
import { BROKER_OWN_KEYS, flagOf, TOPIC_DEFAULT_NAMES, variableOf } from './broker-config.js';

/** A Markdown table with a row for each key that the broker has for itself, ending in a line feed. */
export function brokerConfigTable(): string {
  const rows = Object.entries(BROKER_OWN_KEYS).map(([name, key]) => [
    code(name),
    code(flagOf(name)),
    code(variableOf(name)),
    code(key.defaultText),
    key.valid,
    key.description,
  ]);
  return table(['Key', 'Flag', 'Environment variable', 'Default', 'Takes', 'Meaning'], rows);
}

/** A Markdown table with a row for each key by which the broker sets the default of a topic's key. */
export function topicDefaultsTable(): string {
  const rows = [...TOPIC_DEFAULT_NAMES].map(([topicKey, name]) => [
    code(name),
    code(flagOf(name)),
    code(variableOf(name)),
    code(topicKey),
  ]);
  return table(['Key', 'Flag', 'Environment variable', 'Default of'], rows);
}

/** A Markdown table with a row for each of `keys`, ending in a line feed. */
export function configTable(keys: ConfigKeys): string {
  const rows = Object.entries(keys).map(([name, key]) => [
    code(name),
    code(key.defaultText),
    key.valid,
    key.description,
  ]);
  return table(['Key', 'Default', 'Takes', 'Meaning'], rows);
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  return [row(columns), row(columns.map(() => '---')), ...rows.map(row), ''].join('\n');
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

function code(value: string): string {
  return `\`${value}\``;
}
