/** The arguments of `tidelog group reset-offsets`: which partitions, and where they are to go. */
import { InvalidArgumentError } from 'commander';
import type { ResetTarget } from '../client/admin-groups.js';
import { parseTime } from './arguments.js';

/** Partitions of one topic. */
export interface TopicSpec {
  readonly topic: string;
  /** Empty: all. */
  readonly partitions: readonly number[];
}

/** That long before now, in ms. */
export interface TimeAgo {
  readonly agoMs: number;
}

/** `orders` for all partitions, `orders:0,3` for these. Topic names hold no colons. */
export function topicSpec(value: string): TopicSpec {
  const match = /^(?<topic>[^:,\s]+)(?::(?<list>\d+(?:,\d+)*))?$/.exec(value)?.groups;
  const partitions = match?.list?.split(',').map(Number) ?? [];
  if (match?.topic === undefined || !partitions.every(Number.isSafeInteger)) {
    throw new InvalidArgumentError('It takes a topic, or a topic and partitions of it, as in orders or orders:0,3.');
  }
  const twice = partitions.find((partition, index) => partitions.indexOf(partition) !== index);
  if (twice !== undefined) throw new InvalidArgumentError(`It names partition ${twice} twice.`);
  return { topic: match.topic, partitions };
}

const WORDS = ['earliest', 'latest', 'current'] as const;

/** A word, an offset, a time, or how long before now. */
export function resetPosition(value: string): ResetTarget | TimeAgo {
  const word = WORDS.find((known) => known === value);
  if (word !== undefined) return word;
  const offset = /^\d+$/.test(value) ? Number(value) : undefined;
  if (offset !== undefined && Number.isSafeInteger(offset)) return offset;
  const agoMs = value.startsWith('-') ? parseDuration(value.slice(1)) : undefined;
  const position = agoMs === undefined ? parseTime(value) : { agoMs };
  if (position !== undefined) return position;
  throw new InvalidArgumentError(
    `It takes ${WORDS.join(', ')}, an offset, a time such as 2026-01-31T12:00:00Z (UTC where no zone is given), or how ` +
      'long before now, such as -90s, -15m, -1h30m, -7d or -P1DT2H.',
  );
}

const NUMBER = String.raw`(\d+(?:\.\d+)?)`;

/** Units of a duration in the order in which they are written, in ms. Months and years are not the same length each. */
const WEEK = 7 * 86_400_000;
const UNITS: readonly number[] = [WEEK, 86_400_000, 3_600_000, 60_000, 1000, 1];

/** As in `1h30m`. */
const SHORT_DURATION = new RegExp(
  `^${['w', 'd', 'h', 'm', 's', 'ms'].map((unit) => `(?:${NUMBER}${unit})?`).join('')}$`,
);
/** Of ISO 8601, as in `P1DT2H`; groups as in the short form. */
const ISO_DURATION = new RegExp(
  `^P(?:${NUMBER}W)?(?:${NUMBER}D)?(?:T(?=\\d)(?:${NUMBER}H)?(?:${NUMBER}M)?(?:${NUMBER}S)?)?$`,
);

/** The duration in whole ms; undefined when `text` is none. */
export function parseDuration(text: string): number | undefined {
  const numbers = (SHORT_DURATION.exec(text) ?? ISO_DURATION.exec(text))?.slice(1);
  if (numbers === undefined || numbers.every((number) => number === undefined)) return undefined;
  const ms = numbers.reduce((sum, number, index) => sum + Number(number ?? 0) * (UNITS[index] ?? 0), 0);
  return Number.isSafeInteger(Math.round(ms)) ? Math.round(ms) : undefined;
}

/** A distance in offsets, forward or back. */
export function shift(value: string): number {
  const offsets = /^[+-]?\d+$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isSafeInteger(offsets)) return offsets;
  throw new InvalidArgumentError('It takes a whole number of offsets, as in -100 or 100.');
}
