/** Lists in pages. */
import { LogError } from '../../core/errors.js';

const DEFAULT_PAGE_SIZE = 1000;
const MAX_PAGE_SIZE = 10_000;

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
 * One page of what is sorted by name. The token is the last name of the page before, so that changes between pages lose
 * nothing.
 * @throws LogError INVALID_REQUEST: a negative page size
 */
export function pageByName<Item>(
  sorted: readonly Item[],
  nameOf: (item: Item) => string,
  request: PageRequest,
): Page<Item> {
  const after = decodeToken(request.pageToken);
  return firstPage(
    sorted.filter((item) => nameOf(item) > after),
    nameOf,
    request,
  );
}

/**
 * One page of what is sorted by a number that is not negative.
 * @throws LogError INVALID_REQUEST: a negative page size, a token of something else
 */
export function pageByNumber<Item>(
  sorted: readonly Item[],
  numberOf: (item: Item) => number,
  request: PageRequest,
): Page<Item> {
  const after = request.pageToken === '' ? -1 : Number(decodeToken(request.pageToken));
  if (!Number.isSafeInteger(after))
    throw new LogError('INVALID_REQUEST', 'page_token is not from a page of this list.');
  return firstPage(
    sorted.filter((item) => numberOf(item) > after),
    (item) => String(numberOf(item)),
    request,
  );
}

function firstPage<Item>(
  rest: readonly Item[],
  tokenOf: (item: Item) => string,
  { pageSize }: PageRequest,
): Page<Item> {
  if (pageSize < 0) throw new LogError('INVALID_REQUEST', `page_size ${pageSize} is negative.`);
  const items = rest.slice(0, Math.min(pageSize || DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE));
  const last = rest.length > items.length ? items.at(-1) : undefined;
  const nextPageToken = last === undefined ? '' : Buffer.from(tokenOf(last), 'utf8').toString('base64url');
  return { items, nextPageToken };
}

function decodeToken(token: string): string {
  return Buffer.from(token, 'base64url').toString('utf8');
}
