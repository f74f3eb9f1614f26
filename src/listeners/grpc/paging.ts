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
  if (request.pageSize < 0) throw new LogError('INVALID_REQUEST', `page_size ${request.pageSize} is negative.`);
  const pageSize = Math.min(request.pageSize || DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE);
  const after = Buffer.from(request.pageToken, 'base64url').toString('utf8');
  const rest = sorted.filter((item) => nameOf(item) > after);
  const items = rest.slice(0, pageSize);
  const last = rest.length > items.length ? items.at(-1) : undefined;
  const nextPageToken = last === undefined ? '' : Buffer.from(nameOf(last), 'utf8').toString('base64url');
  return { items, nextPageToken };
}
