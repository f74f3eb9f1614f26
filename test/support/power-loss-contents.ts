/** The contents of one file on a disk that may lose power: what is durable, what is not, and what a cut may leave. */

/** How many of the possible losses of one unit survive, from 0 to `limit`. */
export type Choose = (limit: number) => number;

type ContentChange =
  | { readonly kind: 'write'; readonly position: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly size: number };

type Write = ContentChange & { readonly kind: 'write' };

export interface FileContents {
  durable: Buffer;
  contents: Buffer;
  /** What `contents` lies in. Bytes behind it were never part of the file, so that it can grow in place. */
  room: Buffer;
  /** Since the last sync. */
  changes: ContentChange[];
  /** Changes that are durable, from the first on. */
  syncedCount: number;
}

/** Steps in which a change becomes durable: half of it, its size, all of it. */
const STEPS = 3;
/** What a block holds that was given to a file, but not written to. */
const STALE = 0xdb;
const MIN_ROOM_BYTES = 256;

export function newContents(contents: Buffer): FileContents {
  return { durable: contents, contents, room: contents, changes: [], syncedCount: 0 };
}

export function changeContents(file: FileContents, change: ContentChange): void {
  if (change.kind === 'truncate') file.room = applied(file.contents, change);
  else makeRoom(file, change);
  file.contents = file.room.subarray(0, sizeAfter(file.contents, change));
  file.changes.push(change);
}

/** @param contents as they were when the sync began, after the first `covered` changes */
export function syncedContents(file: FileContents, contents: Buffer, covered: number): void {
  // One that began later, and covers more, may have ended earlier.
  if (covered <= file.syncedCount) return;
  file.durable = contents;
  file.changes = file.changes.slice(covered - file.syncedCount);
  file.syncedCount = covered;
}

/** A write of the file, in place where nobody who holds earlier contents can see it. */
function makeRoom(file: FileContents, write: Write): void {
  const size = file.contents.length;
  const end = endOf(write);
  if (write.position < size || end > file.room.length) {
    const room = Buffer.alloc(Math.max(size, end * 2, MIN_ROOM_BYTES));
    file.contents.copy(room);
    file.room = room;
  }
  write.bytes.copy(file.room, write.position);
}

/** The first few changes, in order, the last of them perhaps in part. */
export function survivingContents({ durable, contents, changes }: FileContents, choose: Choose): Buffer {
  if (changes.length === 0) return durable;
  const steps = choose(changes.length * STEPS);
  if (steps === 0) return durable;
  if (steps === changes.length * STEPS) return contents;
  const wholeCount = Math.floor(steps / STEPS);
  const whole = changes.slice(0, wholeCount).reduce(applied, durable);
  const rest = steps % STEPS;
  const torn = changes[wholeCount];
  if (rest === 0 || torn?.kind !== 'write') return whole;
  return rest === 1 ? applied(whole, half(torn)) : applied(whole, sizeOnly(torn, whole.length));
}

/**
 * Any of the sizes since the last sync, with any of the contents of each sector since then. A sector that never got to
 * the disk holds what it held, where the file grew zeros or what was left there.
 */
export function survivingSectors({ durable, changes }: FileContents, choose: Choose, sectorBytes: number): Buffer {
  if (changes.length === 0) return durable;
  const versions = [durable];
  for (const change of changes) versions.push(applied(versions[versions.length - 1]!, change));
  const result = Buffer.alloc(versions[choose(changes.length)]!.length);
  durable.copy(result);
  for (const [sector, touched] of touchedSectors(changes, sectorBytes)) {
    const choice = choose(touched.length + 1);
    const from = sector * sectorBytes;
    const to = Math.min(from + sectorBytes, result.length);
    if (from >= to) continue;
    if (choice === 1) result.fill(STALE, Math.max(from, Math.min(durable.length, to)), to);
    if (choice <= 1) continue;
    result.fill(0, from, to);
    versions[touched[choice - 2]! + 1]!.copy(result, from, from, to);
  }
  return result;
}

/** The sectors that were written to, each with the changes that did, in order. */
function touchedSectors(
  changes: readonly ContentChange[],
  sectorBytes: number,
): ReadonlyMap<number, readonly number[]> {
  const touched = new Map<number, number[]>();
  for (const [index, change] of changes.entries()) {
    if (change.kind !== 'write') continue;
    const last = Math.floor((endOf(change) - 1) / sectorBytes);
    for (let sector = Math.floor(change.position / sectorBytes); sector <= last; sector++) {
      const already = touched.get(sector);
      if (already) already.push(index);
      else touched.set(sector, [index]);
    }
  }
  return touched;
}

function sizeAfter(contents: Buffer, change: ContentChange): number {
  return change.kind === 'truncate' ? change.size : Math.max(contents.length, endOf(change));
}

function applied(contents: Buffer, change: ContentChange): Buffer {
  const result = Buffer.alloc(sizeAfter(contents, change));
  contents.copy(result);
  if (change.kind === 'write') change.bytes.copy(result, change.position);
  return result;
}

function endOf({ position, bytes }: Write): number {
  return position + bytes.length;
}

function half(write: Write): Write {
  return { ...write, bytes: write.bytes.subarray(0, write.bytes.length >> 1) };
}

/** As if the file had grown already, but nothing had been written to it. */
function sizeOnly(write: Write, sizeBefore: number): Write {
  const position = Math.max(write.position, sizeBefore);
  return { ...write, position, bytes: Buffer.alloc(Math.max(0, endOf(write) - position)) };
}
