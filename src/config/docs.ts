/** The tables of keys in the documentation, made from the keys themselves. */
import type { ConfigKeys } from '../core/config-key.js';
import { BROKER_KEYS, flagOf, variableOf } from './broker-config.js';

/** A Markdown table with a row for each key of the broker, ending in a line feed. */
export function brokerConfigTable(): string {
  const rows = Object.entries(BROKER_KEYS).map(([name, key]) => [
    code(name),
    code(flagOf(name)),
    code(variableOf(name)),
    code(key.defaultText),
    key.valid,
    key.description,
  ]);
  return table(['Key', 'Flag', 'Environment variable', 'Default', 'Takes', 'Meaning'], rows);
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
