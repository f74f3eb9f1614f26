/** Lists in pages. */
import { LogError } from '../../core/errors.js';

const DEFAULT_PAGE_SIZE = 1000;
const MAX_PAGE_SIZE = 10_000;
/** Items that are gathered, beyond twice a page, before those that are too many are found by sorting. */
const SORTED_AT_ONCE = 2000;

export interface PageRequest {
  /** 0: the default. */
  readonly pageSize: number;
  /** From the page before; empty: the first page. */
  readonly pageToken: string;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  /** Empty: this is the last page. */
  readonly nextPageToken: string;
}

/**
 * One page, by name, of items in any order. The token is the last name of the page before, so that changes between pages
 * lose nothing. No more than a page is sorted: of very many items the rest costs a look at each.
 * @param nameOf no two items have the same name, and none an empty one
 * @throws LogError INVALID_REQUEST: a negative page size
 */
export function pageByName<Item>(
  items: Iterable<Item>,
  nameOf: (item: Item) => string,
  request: PageRequest,
): Page<Item> {
  return firstPage(items, nameOf, decodeToken(request.pageToken), request);
}

/**
 * As `pageByName`, by a number that is not negative.
 * @throws LogError INVALID_REQUEST: a negative page size, a token of something else
 */
export function pageByNumber<Item>(
  items: Iterable<Item>,
  numberOf: (item: Item) => number,
  request: PageRequest,
): Page<Item> {
  const after = request.pageToken === '' ? -1 : Number(decodeToken(request.pageToken));
  if (!Number.isSafeInteger(after))
    throw new LogError('INVALID_REQUEST', 'page_token is not from a page of this list.');
  return firstPage(items, numberOf, after, request);
}

function firstPage<Item, Key extends string | number>(
  items: Iterable<Item>,
  keyOf: (item: Item) => Key,
  after: Key,
  { pageSize }: PageRequest,
): Page<Item> {
  if (pageSize < 0) throw new LogError('INVALID_REQUEST', `page_size ${pageSize} is negative.`);
  const count = Math.min(pageSize || DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE);
  // One more, which tells whether there is another page.
  const least = new Least<Item, Key>(count + 1);
  for (const item of items) {
    const key = keyOf(item);
    if (key > after) least.add(key, item);
  }
  const found = least.take();
  const page = found.slice(0, count);
  const last = found.length > count ? page.at(-1) : undefined;
  const nextPageToken = last === undefined ? '' : Buffer.from(String(last.key), 'utf8').toString('base64url');
  return { items: page.map(({ item }) => item), nextPageToken };
}

interface Keyed<Item, Key> {
  readonly key: Key;
  readonly item: Item;
}

/** Those with the least keys of all that are added. */
class Least<Item, Key extends string | number> {
  readonly #count: number;
  #kept: Keyed<Item, Key>[] = [];
  /** Beyond this there are enough already. */
  #bound: Key | undefined;

  constructor(count: number) {
    this.#count = count;
  }

  add(key: Key, item: Item): void {
    if (this.#bound !== undefined && key >= this.#bound) return;
    this.#kept.push({ key, item });
    if (this.#kept.length < 2 * this.#count + SORTED_AT_ONCE) return;
    this.#kept = this.take();
    this.#bound = this.#kept.at(-1)?.key;
  }

  /** In the order of their keys. */
  take(): Keyed<Item, Key>[] {
    return this.#kept.sort((a, b) => (a.key < b.key ? -1 : 1)).slice(0, this.#count);
  }
}

function decodeToken(token: string): string {
  return Buffer.from(token, 'base64url').toString('utf8');
}
