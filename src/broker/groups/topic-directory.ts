/** The topics as groups see them: snapshots for the state machine, and what patterns match. */
import { RE2JS } from 're2js';
import type { Clock, Timer } from '../../core/clock.js';
import { errorMessage, LogError } from '../../core/errors.js';
import { Slices } from '../../core/slices.js';
import type { Topic, Topics } from '../topics.js';
import type { GroupTopic, TopicView } from './group-types.js';

/** Matching gives others a turn after this. */
const SLICE_MS = 4;
/** Between two snapshots, each of which copies what there is. */
const INTERVAL_MS = 50;
/** Patterns that nobody may need any more are looked for when there are this many more than were needed last time. */
const SPARE_PATTERNS = 64;

const NONE: ReadonlySet<string> = new Set();

interface Pattern {
  readonly expression: RE2JS;
  /** Topics that match, as they are now. */
  readonly names: Set<string>;
  /** Settles when all topics were looked at. */
  readonly resolved: Promise<void>;
  isResolved: boolean;
  /** How many are about to have it. */
  users: number;
  /** `names` as the snapshots have it; undefined when that is another now. */
  published: ReadonlySet<string> | undefined;
}

export interface TopicDirectoryOptions {
  readonly topics: Pick<Topics, 'list' | 'onChange'>;
  readonly clock: Clock;
  /** Called when topics have changed, with the new snapshot in `view`. */
  readonly onChange: () => void;
  /** Every pattern that some member has; undefined: that cannot be told now. */
  readonly livePatterns: () => ReadonlySet<string> | undefined;
}

/**
 * Invariants: a snapshot never changes; a pattern of the snapshot was matched against every topic of it; patterns are
 * matched once against each topic, when they come up and when the topic does.
 */
export class TopicDirectory {
  readonly #options: TopicDirectoryOptions;
  readonly #stop: () => void;
  readonly #patterns = new Map<string, Pattern>();
  readonly #topics: Map<string, GroupTopic>;
  /** `#topics` as the snapshots have it; undefined when that is another now. */
  #published: ReadonlyMap<string, GroupTopic> | undefined;
  #view: TopicView | undefined;
  #timer: Timer | undefined;
  #madeMs = Number.NEGATIVE_INFINITY;
  #patternsKept = 0;

  constructor(options: TopicDirectoryOptions) {
    this.#options = options;
    const topics = options.topics.list().filter(({ internal }) => !internal);
    this.#topics = new Map(topics.map((topic) => [topic.record.name, summary(topic)]));
    this.#stop = options.topics.onChange(({ kind, topic }) => {
      if (!topic.internal) this.#changed(topic, kind !== 'deleted');
    });
  }

  /** The topics as they are now, with every pattern that is resolved. The same object while nothing changes. */
  get view(): TopicView {
    this.#view ??= this.#makeView();
    return this.#view;
  }

  #makeView(): TopicView {
    this.#published ??= new Map(this.#topics);
    const topics = this.#published;
    const matches = new Map<string, ReadonlySet<string>>();
    for (const [text, pattern] of this.#patterns) {
      if (!pattern.isResolved) continue;
      pattern.published ??= new Set(pattern.names);
      matches.set(text, pattern.published);
    }
    this.#madeMs = this.#options.clock.monotonic();
    return { get: (name) => topics.get(name), matching: (pattern) => matches.get(pattern) ?? NONE };
  }

  #changed(topic: Topic, exists: boolean): void {
    const { name } = topic.record;
    if (exists) this.#topics.set(name, summary(topic));
    else this.#topics.delete(name);
    this.#published = undefined;
    this.#view = undefined;
    for (const pattern of this.#patterns.values()) this.#match(pattern, name);
    this.#plan();
  }

  #match(pattern: Pattern, name: string): void {
    const matches = this.#topics.has(name) && pattern.expression.matches(name);
    if (matches === pattern.names.has(name)) return;
    if (matches) pattern.names.add(name);
    else pattern.names.delete(name);
    pattern.published = undefined;
  }

  #plan(): void {
    if (this.#timer !== undefined) return;
    const { clock } = this.#options;
    const delayMs = Math.max(0, Math.min(INTERVAL_MS, this.#madeMs + INTERVAL_MS - clock.monotonic()));
    this.#timer = clock.setTimer(delayMs, () => {
      this.#timer = undefined;
      this.#options.onChange();
    });
  }

  /** Patterns that are known, those that nobody needs any more included. */
  get patternCount(): number {
    return this.#patterns.size;
  }

  isResolved(pattern: string): boolean {
    return this.#patterns.get(pattern)?.isResolved === true;
  }

  /**
   * Makes `view` have what the pattern matches. The member that needs it must come to have it before the next turn of the
   * event loop.
   * @throws LogError INVALID_REGULAR_EXPRESSION
   */
  async resolve(text: string): Promise<void> {
    const pattern = this.#resolving(text);
    pattern.users++;
    await pattern.resolved;
    setImmediate(() => {
      pattern.users--;
    });
  }

  #resolving(text: string): Pattern {
    const found = this.#patterns.get(text);
    if (found !== undefined) return found;
    this.#dropUnused();
    const expression = compile(text);
    let resolve = (): void => undefined;
    const resolved = new Promise<void>((done) => {
      resolve = done;
    });
    const pattern: Pattern = {
      expression,
      names: new Set(),
      resolved,
      isResolved: false,
      users: 0,
      published: undefined,
    };
    this.#patterns.set(text, pattern);
    // Never rejects: the expression is compiled, and nothing else can fail.
    void this.#matchAll(pattern).then(resolve);
    return pattern;
  }

  /** What changes meanwhile is matched by `#changed`. */
  async #matchAll(pattern: Pattern): Promise<void> {
    const slices = new Slices(this.#options.clock, SLICE_MS);
    for (const name of [...this.#topics.keys()]) {
      this.#match(pattern, name);
      await slices.step();
    }
    pattern.isResolved = true;
    this.#view = undefined;
  }

  #dropUnused(): void {
    if (this.#patterns.size < 2 * this.#patternsKept + SPARE_PATTERNS) return;
    const live = this.#options.livePatterns();
    if (live === undefined) return;
    for (const [text, pattern] of this.#patterns) {
      if (pattern.isResolved && pattern.users === 0 && !live.has(text)) this.#patterns.delete(text);
    }
    this.#patternsKept = this.#patterns.size;
  }

  /** Follows no more changes. */
  close(): void {
    this.#stop();
    this.#timer?.cancel();
  }
}

function summary({ record: { name, id, partitionCount } }: Topic): GroupTopic {
  return { name, id, partitionCount };
}

function compile(pattern: string): RE2JS {
  try {
    return RE2JS.compile(pattern);
  } catch (error) {
    throw new LogError(
      'INVALID_REGULAR_EXPRESSION',
      `${JSON.stringify(pattern)} is not a regular expression of RE2: ${errorMessage(error)}.`,
      { metadata: { pattern }, cause: error },
    );
  }
}
