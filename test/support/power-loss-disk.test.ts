/** What the disk of the power-loss tests promises, and what it may take: were it too kind, those would show nothing. */
import { describe, expect, test } from 'vitest';
import { type DiskImage, PowerLossDisk } from './power-loss-disk.js';
import { Programme } from './programme.js';

const NOW = 1_700_000_000_000;
const NOTHING = (): number => 0;
const EVERYTHING = (limit: number): number => limit;

function contentsOf(image: DiskImage): Record<string, string> {
  return Object.fromEntries([...image].map(([path, bytes]) => [path, String(bytes)]));
}

/** A disk with the directory /d, which is durable. */
function newDisk(files: Readonly<Record<string, string>> = {}): PowerLossDisk {
  const image = new Map([['/d/', Buffer.alloc(0)]]);
  for (const [path, text] of Object.entries(files)) image.set(path, Buffer.from(text));
  return new PowerLossDisk(NOW, image);
}

function write(disk: PowerLossDisk, path: string, text: string, position = 0): number {
  const fd = disk.openSync(path, position === 0 ? 'create' : 'update');
  disk.writevSync(fd, [Buffer.from(text)], position);
  return fd;
}

/** Every image that a cut may leave, as text. */
function possible(disk: PowerLossDisk, path: string, sectorBytes?: number): ReadonlySet<string> {
  const found = new Set<string>();
  const limits = disk.limits(sectorBytes);
  const choices = limits.map(() => 0);
  for (;;) {
    let unit = 0;
    const image = disk.survivors((limit) => Math.min(limit, choices[unit++] ?? 0), sectorBytes);
    found.add(image.get(path)?.toString('latin1') ?? '(none)');
    let at = 0;
    while (at < limits.length && choices[at] === limits[at]) choices[at++] = 0;
    if (at === limits.length) return found;
    choices[at]!++;
  }
}

describe('durability', () => {
  test('contents need fdatasync, the entry needs syncDirectory, and neither does for the other', async () => {
    const disk = newDisk();
    const fd = write(disk, '/d/synced', 'abc');
    await disk.fdatasync(fd);
    expect(contentsOf(disk.survivors(NOTHING))).toEqual({ '/d/': '' });

    const other = newDisk();
    write(other, '/d/named', 'abc');
    await other.syncDirectory('/d');
    expect(contentsOf(other.survivors(NOTHING))).toEqual({ '/d/': '', '/d/named': '' });

    await disk.syncDirectory('/d');
    expect(contentsOf(disk.survivors(NOTHING))).toEqual({ '/d/': '', '/d/synced': 'abc' });
  });

  test('a sync covers what was there when it began, and only once it has ended', async () => {
    const disk = newDisk({ '/d/file': '' });
    const fd = write(disk, '/d/file', 'abc');
    const sync = disk.fdatasync(fd);
    disk.writevSync(fd, [Buffer.from('def')], 3);
    expect(contentsOf(disk.survivors(NOTHING))).toMatchObject({ '/d/file': '' });
    await sync;
    expect(contentsOf(disk.survivors(NOTHING))).toMatchObject({ '/d/file': 'abc' });
    expect(contentsOf(disk.survivors(EVERYTHING))).toMatchObject({ '/d/file': 'abcdef' });
  });

  test('syncs of one file at the same time add up', async () => {
    const disk = newDisk({ '/d/file': '' });
    const fd = write(disk, '/d/file', 'abc');
    const first = disk.fdatasync(fd);
    disk.writevSync(fd, [Buffer.from('def')], 3);
    await Promise.all([first, disk.fdatasync(fd)]);
    expect(contentsOf(disk.survivors(NOTHING))).toMatchObject({ '/d/file': 'abcdef' });
    expect(disk.limits()).toEqual([]);
  });

  test('a directory and what is in it are lost together', async () => {
    const disk = newDisk();
    await disk.mkdir('/d/sub');
    const fd = write(disk, '/d/sub/file', 'abc');
    await disk.fdatasync(fd);
    await disk.syncDirectory('/d/sub');
    expect(contentsOf(disk.survivors(NOTHING))).toEqual({ '/d/': '' });
    await disk.syncDirectory('/d');
    expect(contentsOf(disk.survivors(NOTHING))).toEqual({ '/d/': '', '/d/sub/': '', '/d/sub/file': 'abc' });
  });
});

describe('a cut', () => {
  test('leaves of a file the first few changes, the last in part or by its size only', () => {
    const disk = newDisk({ '/d/file': 'ab' });
    const fd = write(disk, '/d/file', 'cd', 2);
    disk.ftruncateSync(fd, 1);
    disk.writevSync(fd, [Buffer.from('xyz!')], 1);
    expect(possible(disk, '/d/file')).toEqual(
      new Set(['ab', 'abc', 'ab\0\0', 'abcd', 'a', 'axy', 'a\0\0\0\0', 'axyz!']),
    );
  });

  test('leaves of entries with different files any subset, of those with one file the first few', async () => {
    const disk = newDisk({ '/d/old': 'old', '/d/gone': 'gone' });
    await disk.fdatasync(write(disk, '/d/new.tmp', 'new'));
    await disk.rename('/d/new.tmp', '/d/old');
    await disk.unlink('/d/gone');
    const found = new Set<string>();
    for (const created of [0, 1, 2]) {
      for (const removed of [0, 1]) {
        const choices = [created, removed];
        found.add(JSON.stringify(contentsOf(disk.survivors(() => choices.shift()!))));
      }
    }
    expect(disk.limits()).toEqual([2, 1]);
    const left = (files: object): object => ({ '/d/': '', ...files });
    expect([...found].map((text) => JSON.parse(text))).toEqual([
      left({ '/d/old': 'old', '/d/gone': 'gone' }),
      left({ '/d/old': 'old' }),
      left({ '/d/old': 'old', '/d/gone': 'gone', '/d/new.tmp': 'new' }),
      left({ '/d/old': 'old', '/d/new.tmp': 'new' }),
      left({ '/d/old': 'new', '/d/gone': 'gone' }),
      left({ '/d/old': 'new' }),
    ]);
  });

  test('leaves of reordered sectors any subset, whatever the size of the file', () => {
    const disk = newDisk({ '/d/file': 'ab' });
    write(disk, '/d/file', 'cdefg', 2);
    const stale = '\xdb';
    const found = possible(disk, '/d/file', 4);
    // The size is the old one or the new one; each of the two sectors is old, new, or has stale bytes where it grew.
    const first = [`ab\0\0`, `ab${stale}${stale}`, 'abcd'];
    const second = ['\0\0\0', stale.repeat(3), 'efg'];
    const grown = first.flatMap((a) => second.map((b) => a + b));
    expect(found).toEqual(new Set(['ab', ...grown]));
  });

  test('takes none of what was synced, in whatever order sectors are written', async (context) => {
    const programme = new Programme(context, 20_260_310);
    const disk = newDisk({ '/d/file': '' });
    const synced = Buffer.alloc(3000, 'x');
    const fd = write(disk, '/d/file', String(synced));
    await disk.fdatasync(fd);
    disk.writevSync(fd, [Buffer.alloc(3000, 'y')], 3000);
    for (let i = 0; i < 200; i++) {
      const image = disk.survivors((limit) => programme.below(limit + 1), 512);
      const bytes = image.get('/d/file')!;
      expect(bytes.subarray(0, 3000).equals(synced)).toBe(true);
      expect([3000, 6000]).toContain(bytes.length);
      programme.tried('states');
    }
  });
});

test('images stay as they were, whatever is written later', () => {
  const disk = newDisk();
  const fd = write(disk, '/d/file', 'abc');
  const before = disk.survivors(EVERYTHING);
  disk.writevSync(fd, [Buffer.from('def')], 3);
  const longer = disk.survivors(EVERYTHING);
  disk.ftruncateSync(fd, 2);
  disk.writevSync(fd, [Buffer.from('XYZ')], 2);
  disk.writevSync(fd, [Buffer.from('Q')], 0);
  expect(contentsOf(before)).toMatchObject({ '/d/file': 'abc' });
  expect(contentsOf(longer)).toMatchObject({ '/d/file': 'abcdef' });
  expect(contentsOf(disk.survivors(EVERYTHING))).toMatchObject({ '/d/file': 'QbXYZ' });
});

test('a disk begun from an image holds it, all durable', () => {
  const disk = newDisk({ '/d/file': 'abc' });
  expect(contentsOf(new PowerLossDisk(NOW, disk.survivors(EVERYTHING)).survivors(NOTHING))).toEqual({
    '/d/': '',
    '/d/file': 'abc',
  });
});

test('each change is announced before it is made, a sync also before it ends', async () => {
  const disk = newDisk({ '/d/file': 'abc' });
  const seen: string[] = [];
  disk.beforeChange = (name, path) => seen.push(`${name} ${path} ${disk.survivors(EVERYTHING).get('/d/file')}`);
  const fd = disk.openSync('/d/file', 'update');
  disk.writevSync(fd, [Buffer.from('d')], 3);
  await disk.fdatasync(fd);
  await disk.unlink('/d/file');
  await disk.syncDirectory('/d');
  expect(seen).toEqual([
    'writevSync /d/file abc',
    'fdatasync /d/file abcd',
    'fdatasync /d/file abcd',
    'unlink /d/file abcd',
    'syncDirectory /d undefined',
    'syncDirectory /d undefined',
  ]);
});
