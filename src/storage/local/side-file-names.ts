/** Names of the side files of a log: their offset in 20 digits, and their kind. */
import { type Offset, toOffset } from '../../core/types.js';
import type { SideFileKind } from '../engine.js';
import { segmentName } from './segment.js';

export interface SideFileName {
  readonly kind: SideFileKind;
  readonly offset: Offset;
}

const SIDE_FILE = /^(\d{20})\.(snapshot|txnindex)$/;

export function sideFileName(kind: SideFileKind, offset: Offset): string {
  return `${segmentName(offset)}.${kind}`;
}

/** What a name says; undefined when it is none of a side file. */
export function parseSideFileName(name: string): SideFileName | undefined {
  const [, digits, suffix] = SIDE_FILE.exec(name) ?? [];
  const offset = Number(digits);
  if (!Number.isSafeInteger(offset)) return undefined;
  return { kind: suffix === 'snapshot' ? 'snapshot' : 'txnindex', offset: toOffset(offset) };
}
