/** What is measured, and in which units. */

export interface Figure {
  readonly value: number;
  readonly unit: string;
}

export interface Scenario {
  readonly name: string;
  /** Takes minutes or gigabytes: runs only when it is asked for. */
  readonly long?: boolean;
  run(): Promise<Record<string, Figure>>;
}

export const mb = (value: number): Figure => ({ value, unit: 'MB/s' });
export const megabytes = (value: number): Figure => ({ value, unit: 'MB' });
export const records = (value: number): Figure => ({ value: value / 1e6, unit: 'M records/s' });
export const ms = (value: number): Figure => ({ value, unit: 'ms' });

/** Prefixes every name. */
export function named(prefix: string, figures: Record<string, Figure>): Record<string, Figure> {
  return Object.fromEntries(Object.entries(figures).map(([name, figure]) => [`${prefix} ${name}`, figure]));
}
