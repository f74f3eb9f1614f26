/** Faults for a history of the model: each makes it show one kind of violation. */
import type { AssignEvent, EndEvent, HistoryEvent, PollEvent, Position, SeenRecord, SendEvent } from './events.js';
import type { ViolationKind } from './violations.js';

/**
 * Changes the history.
 * @returns the index of an event that the evidence must contain; undefined if the history has no place for the fault
 */
export type Fault = (history: MutableHistory) => number | undefined;

/** A number of a send that the model does not use. */
const STRAY_SEND = 1_000_000_000;
/** How far apart two sends may be that change places. */
const MAX_SWAP_DISTANCE = 50;

/** A copy of a history of the model, to be spoilt. */
export class MutableHistory {
  readonly events: HistoryEvent[];
  readonly #random: () => number;

  constructor(events: readonly HistoryEvent[], random: () => number) {
    this.events = [...events];
    this.#random = random;
  }

  /** @returns the index of the event */
  add(event: HistoryEvent): number {
    return this.events.push(event) - 1;
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.#random() * items.length)];
  }

  /** The indexes of the events of a kind for which `matches` holds. */
  indexes<K extends HistoryEvent['kind']>(
    kind: K,
    matches: (event: Extract<HistoryEvent, { kind: K }>, index: number) => boolean = () => true,
  ): number[] {
    const isOne = (event: HistoryEvent, index: number): boolean => isKind(event, kind) && matches(event, index);
    return [...this.events.keys()].filter((index) => isOne(this.events[index]!, index));
  }

  at<K extends HistoryEvent['kind']>(index: number, kind: K): Extract<HistoryEvent, { kind: K }> {
    const event = this.events[index]!;
    if (!isKind(event, kind)) throw new Error(`event ${index} is no ${kind}`);
    return event;
  }

  /** Sends by number. */
  sends(): Map<number, SendEvent> {
    return new Map(this.events.flatMap((event) => (event.kind === 'send' ? [[event.send, event] as const] : [])));
  }

  /** Polls of topic `plain` with two records or more by the last reader of committed data, which saw all to the end. */
  finalPolls(): number[] {
    return this.indexes(
      'poll',
      ({ process, records }) =>
        process === 'final-read_committed' && records.length >= 2 && records[0]!.topic === 'plain',
    );
  }

  /**
   * A record in one of these polls, with the index of the poll; not of a transaction, for if that ended nobody knows how,
   * this poll may be all that shows its commit.
   */
  finalRecord(
    isWanted: (record: SeenRecord) => boolean = () => true,
  ): { readonly record: SeenRecord; readonly at: number } | undefined {
    const transactional = new Set(
      this.indexes('send', ({ transaction }) => transaction !== undefined).map((at) => this.at(at, 'send').value),
    );
    const records = this.finalPolls().flatMap((at) => this.at(at, 'poll').records.map((record) => ({ record, at })));
    return this.pick(records.filter(({ record }) => !transactional.has(record.value) && isWanted(record)));
  }

  /** The end of partition 0 of `plain`. */
  get end(): EndEvent['end'] {
    const index = this.indexes('end', ({ end }) => end.topic === 'plain' && end.partition === 0).at(-1)!;
    return this.at(index, 'end').end;
  }
}

export const FAULTS: Readonly<Record<ViolationKind, Fault>> = {
  'lost-write': (history) => {
    const chosen = history.finalRecord();
    const index = history.indexes('ack', ({ send }) => history.sends().get(send)!.value === chosen?.record.value)[0];
    if (chosen === undefined || index === undefined) return undefined;
    for (const at of history.indexes('poll')) drop(history, at, chosen.record);
    return index;
  },

  unseen: (history) => {
    const { end } = history;
    const before = history.indexes('assign', ({ process }) => process === 'final-read_committed')[0]!;
    const send = { process: 'stray', send: STRAY_SEND } as const;
    history.events.splice(
      before,
      0,
      { ...send, kind: 'send', topic: end.topic, value: 'late' },
      { ...send, kind: 'ack', partition: end.partition, offset: end.offset },
    );
    return before + 1;
  },

  duplicate: (history) => {
    const chosen = history.finalRecord();
    return chosen && seeStray(history, { ...history.end, value: chosen.record.value });
  },

  'aborted-read': (history) => {
    const chosen = history.finalRecord();
    const index = history.indexes('ack', ({ send }) => history.sends().get(send)!.value === chosen?.record.value)[0];
    if (index === undefined) return undefined;
    const { process, send } = history.at(index, 'ack');
    history.events[index] = { kind: 'error', process, send, outcome: 'none' };
    return index;
  },

  'precommitted-read': (history) => {
    const transactions = new Map([...history.sends().values()].map(({ value, transaction }) => [value, transaction]));
    const at = history.indexes(
      'poll',
      ({ records, isolation }) =>
        isolation === 'read_committed' && records.some(({ value }) => transactions.get(value) !== undefined),
    )[0];
    if (at === undefined) return undefined;
    const seen = history.at(at, 'poll').records.map(({ value }) => transactions.get(value));
    const transaction = seen.find((id) => id !== undefined);
    const isItsEnd = (event: { transaction: string }): boolean => event.transaction === transaction;
    const ends = [...history.indexes('commit-transaction', isItsEnd), ...history.indexes('end-transaction', isItsEnd)];
    for (const index of ends) history.events[index] = { kind: 'crash', what: 'before the end of a transaction' };
    return at;
  },

  'torn-transaction': (history) => {
    const transactions = new Map([...history.sends().values()].map(({ value, transaction }) => [value, transaction]));
    const last = history.indexes('poll', ({ process }) => process === 'final-read_committed');
    const seen = last.flatMap((at) => history.at(at, 'poll').records);
    const transactionOf = ({ value }: SeenRecord): string | undefined => transactions.get(value);
    const torn = history.pick(
      seen.filter((record) => {
        const transaction = transactionOf(record);
        const others = seen.filter((other) => other !== record && transactionOf(other) === transaction);
        return transaction !== undefined && record.topic === 'plain' && others.length > 0;
      }),
    );
    const index = history.indexes('ack', ({ send }) => history.sends().get(send)!.value === torn?.value)[0];
    if (torn === undefined || index === undefined) return undefined;
    for (const at of history.indexes('poll')) drop(history, at, torn);
    for (const at of history.indexes('end-transaction', ({ transaction }) => transaction === transactionOf(torn))) {
      history.events[at] = { ...history.at(at, 'end-transaction'), result: 'unknown' };
    }
    return index;
  },

  'inconsistent-offsets': (history) => {
    const chosen = history.finalRecord();
    if (chosen === undefined) return undefined;
    history.add({ kind: 'send', process: 'stray', send: STRAY_SEND, topic: 'plain', value: 'other' });
    return seeStray(history, { ...chosen.record, value: 'other' });
  },

  'poll-skip': (history) => {
    const chosen = history.finalRecord();
    if (chosen !== undefined) drop(history, chosen.at, chosen.record);
    return chosen?.at;
  },

  'nonmonotonic-poll': (history) => {
    const at = history.pick(history.finalPolls());
    return at === undefined ? undefined : history.add(history.events[at]!);
  },

  'nonmonotonic-send': (history) => {
    const answers = new Map(
      history.indexes('ack').map((at) => [history.at(at, 'ack').send, { ...history.at(at, 'ack'), at }]),
    );
    const seenFrom = new Map<string, number>();
    for (const at of history.indexes('poll').reverse()) {
      for (const { value } of history.at(at, 'poll').records) seenFrom.set(value, at);
    }
    const pairs = history.indexes('send').flatMap((early) =>
      history
        .indexes('send', (_, late) => late > early && late < early + MAX_SWAP_DISTANCE)
        .filter((late) => {
          const [first, second] = [history.at(early, 'send'), history.at(late, 'send')];
          const [firstAck, secondAck] = [answers.get(first.send), answers.get(second.send)];
          return (
            first.process === second.process &&
            first.topic === second.topic &&
            firstAck?.partition === secondAck?.partition &&
            Math.min(firstAck?.at ?? -1, secondAck?.at ?? -1) > late &&
            (seenFrom.get(first.value) ?? late + 1) > late
          );
        })
        .map((late) => [early, late] as const),
    );
    const pair = history.pick(pairs);
    if (pair === undefined) return undefined;
    const [early, late] = pair;
    [history.events[early], history.events[late]] = [history.events[late]!, history.events[early]!];
    return late;
  },

  'foreign-value': (history) => {
    const chosen = history.finalRecord();
    if (chosen === undefined) return undefined;
    const poll = history.at(chosen.at, 'poll');
    const records = poll.records.map((record) => (record === chosen.record ? { ...record, value: 'foreign' } : record));
    history.events[chosen.at] = { ...poll, records };
    return chosen.at;
  },

  'lost-commit': (history) => {
    const at = history.indexes('commit').at(-1);
    const position = at === undefined ? undefined : history.at(at, 'commit').positions.find(({ offset }) => offset > 0);
    if (position === undefined) return undefined;
    const positions = [{ ...position, offset: position.offset - 1 }];
    return history.add({ kind: 'assign', process: 'intruder', group: 'group', positions });
  },

  'group-skip': (history) => {
    const commitAbove = (record: SeenRecord): number | undefined =>
      history.indexes('commit', ({ positions }) => positions.some((position) => isAbove(position, record)))[0];
    const chosen = history.finalRecord((record) => commitAbove(record) !== undefined)?.record;
    if (chosen === undefined) return undefined;
    const isOther = ({ topic, partition, offset }: Position): boolean =>
      topic !== chosen.topic || partition !== chosen.partition || offset !== chosen.offset;
    for (const at of history.indexes('finish')) {
      const { records, ...rest } = history.at(at, 'finish');
      history.events[at] = { ...rest, records: records.filter(isOther) };
    }
    return commitAbove(chosen);
  },

  'two-owners': (history) => {
    const at = history.indexes('assign', ({ group }) => group !== undefined).at(-1)!;
    return history.add({ ...history.at(at, 'assign'), process: 'intruder' } satisfies AssignEvent);
  },
};

function isAbove({ topic, partition, offset }: Position, record: SeenRecord): boolean {
  return topic === record.topic && partition === record.partition && offset > record.offset;
}

/** Takes a record out of a poll. */
function drop(history: MutableHistory, at: number, { value }: SeenRecord): void {
  const poll = history.at(at, 'poll');
  const isOther = (record: SeenRecord): boolean => record.value !== value;
  if (poll.records.every(isOther)) return;
  history.events[at] = { ...poll, records: poll.records.filter(isOther) } satisfies PollEvent;
}

/** Another reader sees a record. */
function seeStray(history: MutableHistory, record: SeenRecord): number {
  return history.add({ kind: 'poll', process: 'stray', records: [record], isolation: 'read_uncommitted' });
}

function isKind<K extends HistoryEvent['kind']>(
  event: HistoryEvent,
  kind: K,
): event is Extract<HistoryEvent, { kind: K }> {
  return event.kind === kind;
}
