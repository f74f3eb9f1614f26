/** Files in a partition's directory that are no part of its log. */
import {
  CLEANED_SUFFIX,
  DELETED_SUFFIX,
  LOG_SUFFIX,
  OFFSET_INDEX_SUFFIX,
  SWAP_SUFFIX,
  TIME_INDEX_SUFFIX,
} from './segment.js';
import { TEMPORARY_SUFFIX } from './small-files.js';

/** A replacement that was decided has been finished by the time these are looked for. */
const LEFTOVER_SUFFIXES: readonly string[] = [DELETED_SUFFIX, TEMPORARY_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX];

/** Whether a file is what an interrupted replacement or removal leaves behind, indexes without their log included. */
export function isLeftover(name: string, logs: ReadonlySet<string>): boolean {
  if (LEFTOVER_SUFFIXES.some((suffix) => name.endsWith(suffix))) return true;
  for (const suffix of [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX]) {
    if (name.endsWith(suffix)) return !logs.has(name.slice(0, -suffix.length) + LOG_SUFFIX);
  }
  return false;
}
