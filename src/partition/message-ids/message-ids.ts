import { partitionPoint } from '../../core/binary-search.js';
import { LogError } from '../../core/errors.js';
import type { ForgetfulOfIds, MessageIdBudget } from './message-id-budget.js';

/** So many characters of an id count as one more. */
const CHARACTERS_PER_EXTRA = 100;
/** Ids forgotten at each request because their window is over, besides twice as many as it brings. */
const FORGOTTEN_PER_REQUEST = 1000;
/** A start may take this many times the room that there is: it reads again what was forgotten already. */
const LOAD_FACTOR = 2;
/** The least number of forgotten entries that are worth moving the others for. */
const MIN_MOVE = 1024;

/** An id and where the record that came with it is. */
export interface RememberedId {
  readonly id: string;
  readonly offset: number;
  /** When it came, by the monotonic clock. */
  readonly cameMs: number;
}

/** What is to become of the records of one request. */
export interface Admission {
  /** Of each record: where it is, or where it will be. */
  readonly offsets: readonly number[];
  /** Indexes of those that are to be appended, ascending. */
  readonly fresh: readonly number[];
}

export interface MessageIdsOptions {
  /** Of the partition, for errors. */
  readonly topic: string;
  readonly partition: number;
  readonly budget: MessageIdBudget;
  /** How long an id is remembered, in ms (`dedupe.window.ms`). */
  readonly windowMs: number;
}

/**
 * The ids of records that came to one partition within a window of time: what makes it find out that a record came
 * twice. Pure. Times are of the monotonic clock, so that no jump of the wall clock forgets an id early.
 *
 * What is admitted since the last `settle` is provisional, until the log has taken the records: `undoTo` takes it back.
 * Invariants: entries ascend by offset and by time; an id whose window is over counts as not remembered, whether it was
 * forgotten yet or not; at most `message.ids.max` of room is used, twice that while a start reads what came before.
 */
export class MessageIds implements ForgetfulOfIds {
  readonly #options: MessageIdsOptions;
  #windowMs: number;
  /** The newest entry of each id. */
  readonly #byId = new Map<string, RememberedId>();
  /** In the order in which they came. One that is not in `#byId` has been replaced since. */
  #order: RememberedId[] = [];
  /** Entries of `#order` that are forgotten, at its beginning. */
  #head = 0;
  /** Entries that have been moved out of `#order`: with it a place in the order is the same for ever. */
  #moved = 0;
  /** The room that is taken. */
  #used = 0;

  constructor(options: MessageIdsOptions) {
    this.#options = options;
    this.#windowMs = options.windowMs;
  }

  /** Ids that are remembered. */
  get count(): number {
    return this.#byId.size;
  }

  /** Follows a changed window, for ids that came before as well. */
  configure(windowMs: number): void {
    if (windowMs === this.#windowMs) return;
    this.#windowMs = windowMs;
    this.#options.budget.lookAgain();
  }

  /**
   * Finds out which records are there already, also within the request, and remembers the others, which are to be
   * appended from `nextOffset` on.
   * @throws LogError RESOURCE_LIMIT with the time until ids are forgotten, INVALID_REQUEST (more than is ever remembered):
   *   nothing was changed
   */
  admit(ids: readonly string[], nextOffset: number, nowMs: number): Admission {
    this.forgetExpired(nowMs, FORGOTTEN_PER_REQUEST + 2 * ids.length);
    const offsets: number[] = [];
    const fresh: number[] = [];
    const added = new Map<string, number>();
    let size = 0;
    for (const [index, id] of ids.entries()) {
      const known = this.#find(id, nowMs)?.offset ?? added.get(id);
      offsets.push(known ?? nextOffset + fresh.length);
      if (known !== undefined) continue;
      added.set(id, nextOffset + fresh.length);
      fresh.push(index);
      size += sizeOf(id);
    }
    if (size > 0) this.#takeRoom(size, nowMs);
    this.#used += size;
    for (const [id, offset] of added) this.#add({ id, offset, cameMs: nowMs });
    return { offsets, fresh };
  }

  #find(id: string, nowMs: number): RememberedId | undefined {
    const entry = this.#byId.get(id);
    return entry === undefined || this.#isOver(entry, nowMs) ? undefined : entry;
  }

  #isOver({ cameMs }: RememberedId, nowMs: number): boolean {
    return cameMs + this.#windowMs <= nowMs;
  }

  #takeRoom(size: number, nowMs: number): void {
    const { budget, topic, partition } = this.#options;
    const { limit } = budget;
    const metadata = { topic, partition, message_ids_max: limit };
    if (size > limit) {
      throw new LogError(
        'INVALID_REQUEST',
        `The message ids of one request take room for ${size}; this broker remembers ${limit} (message.ids.max). ` +
          'Send fewer records at once.',
        { metadata },
      );
    }
    const retryAfterMs = budget.take(size, this.#windowMs, nowMs);
    if (retryAfterMs === undefined) return;
    throw new LogError(
      'RESOURCE_LIMIT',
      `This broker remembers ${limit} message ids (message.ids.max), and there is no room for ${size} more before ` +
        'the window of others is over. Nothing was appended. Send more slowly, or lower dedupe.window.ms.',
      { metadata, retryAfterMs: Math.ceil(retryAfterMs) },
    );
  }

  /** The room for it is taken already. */
  #add(entry: RememberedId): void {
    const { budget } = this.#options;
    // Of an earlier window; not forgotten yet.
    if (this.#byId.has(entry.id)) this.#release(sizeOf(entry.id));
    if (this.#byId.size === 0) budget.setOwner(this, true);
    this.#byId.set(entry.id, entry);
    this.#order.push(entry);
  }

  /** A point in what is admitted that `undoTo` can go back to. */
  savepoint(): number {
    return this.#moved + this.#order.length;
  }

  /** Takes back what was admitted since then. */
  undoTo(savepoint: number): void {
    const length = Math.max(savepoint - this.#moved, this.#head);
    while (this.#order.length > length) this.#forget(this.#order.pop()!);
  }

  forgetExpired(nowMs: number, maxCount: number): { count: number; nextMs: number } {
    let count = 0;
    let nextMs = Number.POSITIVE_INFINITY;
    for (; this.#head < this.#order.length; this.#head++) {
      const entry = this.#order[this.#head]!;
      nextMs = entry.cameMs + this.#windowMs;
      if (count === maxCount || !this.#isOver(entry, nowMs)) break;
      this.#forget(entry);
      count++;
      nextMs = Number.POSITIVE_INFINITY;
    }
    this.#moveUp();
    return { count, nextMs };
  }

  #forget(entry: RememberedId): void {
    if (this.#byId.get(entry.id) !== entry) return;
    this.#byId.delete(entry.id);
    this.#release(sizeOf(entry.id));
    if (this.#byId.size === 0) this.#options.budget.setOwner(this, false);
  }

  #release(size: number): void {
    this.#used -= size;
    this.#options.budget.release(size);
  }

  #moveUp(): void {
    if (this.#head < MIN_MOVE || this.#head < this.#order.length / 2) return;
    this.#order = this.#order.slice(this.#head);
    this.#moved += this.#head;
    this.#head = 0;
  }

  /**
   * Puts back an id of before the start; to be called in the order of offsets, before anything is admitted. Beyond twice
   * the room that there is, the ids of this partition that came first are forgotten.
   */
  restore(entry: RememberedId): void {
    const { budget } = this.#options;
    const size = sizeOf(entry.id);
    budget.takeAnyway(size);
    this.#used += size;
    this.#add(entry);
    const limit = budget.limit * LOAD_FACTOR;
    for (; budget.used > limit && this.#head < this.#order.length; this.#head++) this.#forget(this.#order[this.#head]!);
    this.#moveUp();
  }

  /** The ids that are remembered at `nowMs`, in the order of offsets: a copy. */
  entries(nowMs: number): readonly RememberedId[] {
    // What has been replaced was over by then, so that it is not among these.
    const order = this.#order;
    const rest = partitionPoint(order.length - this.#head, (index) => this.#isOver(order[this.#head + index]!, nowMs));
    return order.slice(this.#head + rest);
  }

  /** Forgets everything and gives the room back. */
  clear(): void {
    this.#byId.clear();
    this.#moved += this.#order.length;
    this.#order = [];
    this.#head = 0;
    this.#release(this.#used);
    this.#options.budget.setOwner(this, false);
  }
}

/** The room that an id takes. */
function sizeOf(id: string): number {
  return 1 + Math.floor(id.length / CHARACTERS_PER_EXTRA);
}
