/**
 * A log that keeps every promise, and clients of it at random: histories in which there is nothing to find.
 *
 * Topic `plain` has two partitions, sends, transactions, a group and trims; topic `keyed` has one that is compacted.
 */
import { LogError } from '../../src/core/errors.js';
import { firstFrom } from './checks/must-see.js';
import type { HistoryOptions, Place, Position } from './events.js';
import { History } from './history.js';
import type { Isolation } from './history-index.js';

export const MODEL_OPTIONS: HistoryOptions = { compacted: new Set(['keyed']) };

const KEYS = 6;
const MAX_POLL_RECORDS = 8;
const PRODUCERS = ['p0', 'p1', 'p2'];
const GROUP = 'group';

interface ModelRecord {
  readonly offset: number;
  readonly value: string;
  readonly key: string | undefined;
  readonly tombstone: boolean;
  readonly transaction: ModelTransaction | undefined;
  removed: boolean;
}

interface ModelTransaction {
  readonly id: string;
  readonly touched: Set<ModelLog>;
  readonly first: Map<ModelLog, number>;
  state: 'open' | 'committed' | 'aborted';
}

/** One partition. */
class ModelLog {
  readonly place: Place;
  readonly records: ModelRecord[] = [];
  readonly open = new Set<ModelTransaction>();
  start = 0;
  end = 0;

  constructor(topic: string, partition: number) {
    this.place = { topic, partition };
  }

  append(record: Omit<ModelRecord, 'offset' | 'removed'>): number {
    this.records.push({ ...record, offset: this.end, removed: false });
    return this.end++;
  }

  limit(isolation: Isolation): number {
    if (isolation === 'read_uncommitted') return this.end;
    return Math.min(this.end, ...[...this.open].map((transaction) => transaction.first.get(this)!));
  }
}

interface ModelReader {
  readonly process: string;
  readonly isolation: Isolation;
  readonly group: string | undefined;
  readonly positions: Map<ModelLog, number>;
}

export class ModelClients {
  readonly history: History = new History();
  readonly #random: () => number;
  readonly #logs = [new ModelLog('plain', 0), new ModelLog('plain', 1), new ModelLog('keyed', 0)];
  /** Answers that are on their way, in the order of the log. */
  readonly #answers: (() => void)[] = [];
  readonly #transactions: ModelTransaction[] = [];
  readonly #readers: ModelReader[] = [];
  readonly #committed = new Map<ModelLog, number>();
  #names = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** Lets the clients take `steps`, and then reads each partition to its end, as both isolations see it. */
  run(steps: number): History {
    this.#startMember();
    for (let step = 0; step < steps; step++) this.#step();
    for (const transaction of [...this.#transactions]) this.#decide(transaction);
    for (const answer of this.#answers.splice(0)) answer();
    for (const isolation of ['read_committed', 'read_uncommitted'] as const) {
      const reader = this.#startReader(isolation, `final-${isolation}`, () => 0);
      while (this.#logs.some((log) => reader.positions.get(log)! < log.end)) this.#poll(reader);
    }
    return this.history;
  }

  #step(): void {
    const chance = this.#random();
    if (chance < 0.35) this.#send(this.#pick(PRODUCERS), this.#pick(this.#logs));
    else if (chance < 0.55) for (const answer of this.#answers.splice(0, 1 + this.#below(4))) answer();
    else if (chance < 0.8) this.#poll(this.#pick(this.#readers));
    else if (chance < 0.84) this.#begin();
    else if (chance < 0.9) this.#decideOne();
    else if (chance < 0.93) this.#changeReaders();
    else if (chance < 0.945) this.#handOver();
    else if (chance < 0.95) this.#trim(this.#logs[this.#below(2)]!);
    else this.#compact();
  }

  #send(process: string, log: ModelLog, transaction?: ModelTransaction): void {
    const key = log.place.topic === 'keyed' ? `k${this.#below(KEYS)}` : undefined;
    const tombstone = key !== undefined && this.#random() < 0.1;
    const value = `v${this.#names++}`;
    const send = this.history.send(process, log.place.topic, value, { key, tombstone, transaction: transaction?.id });
    const fate = transaction === undefined ? fateOf(this.#random()) : 'acknowledged';
    if (fate === 'refused') send.error(failure('none'));
    if (fate === 'lost' || fate === 'answer lost') send.error(failure('unknown'));
    if (fate === 'refused' || fate === 'lost') return;
    const offset = log.append({ value, key, tombstone, transaction });
    if (fate === 'acknowledged') this.#answers.push(() => send.ack(log.place.partition, offset));
  }

  #begin(): void {
    const transaction: ModelTransaction = {
      id: `x${this.#names++}`,
      touched: new Set(),
      first: new Map(),
      state: 'open',
    };
    this.#transactions.push(transaction);
    const process = `producer of ${transaction.id}`;
    for (let count = 1 + this.#below(4); count > 0; count--) {
      const log = this.#logs[this.#below(2)]!;
      log.open.add(transaction);
      if (!transaction.touched.has(log)) transaction.first.set(log, log.end);
      transaction.touched.add(log);
      this.#send(process, log, transaction);
    }
  }

  #decideOne(): void {
    if (this.#transactions.length > 0) this.#decide(this.#pick(this.#transactions));
  }

  #decide(transaction: ModelTransaction): void {
    this.#transactions.splice(this.#transactions.indexOf(transaction), 1);
    const ends = {
      kind: 'end-transaction',
      process: `producer of ${transaction.id}`,
      transaction: transaction.id,
    } as const;
    const commits = this.#random() < 0.7;
    if (commits) this.history.add({ ...ends, kind: 'commit-transaction' });
    transaction.state = commits ? 'committed' : 'aborted';
    for (const log of transaction.touched) {
      log.open.delete(transaction);
      // The control record takes an offset that nobody sees.
      log.end++;
    }
    const result = this.#random() < 0.2 ? 'unknown' : transaction.state;
    this.#answers.push(() => this.history.add({ ...ends, result }));
  }

  #startReader(isolation: Isolation, process: string, from: (log: ModelLog) => number, group?: string): ModelReader {
    const positions = new Map(this.#logs.map((log) => [log, from(log)]));
    const reader: ModelReader = { process, isolation, group, positions };
    const assigned = [...positions].map(([log, offset]): Position => ({ ...log.place, offset }));
    this.history.assign(process, assigned, group);
    return reader;
  }

  #startMember(): void {
    const from = (log: ModelLog): number => this.#committed.get(log) ?? 0;
    this.#readers.unshift(this.#startReader('read_committed', `member-${this.#names++}`, from, GROUP));
  }

  #changeReaders(): void {
    if (this.#readers.length > 3) {
      const [reader] = this.#readers.splice(1 + this.#below(this.#readers.length - 1), 1);
      this.#stop(reader!);
      return;
    }
    const isolation = this.#random() < 0.5 ? 'read_committed' : 'read_uncommitted';
    const from = (log: ModelLog): number => this.#below(log.end + 1);
    this.#readers.push(this.#startReader(isolation, `reader-${this.#names++}`, from));
  }

  #stop({ process }: ModelReader): void {
    if (this.#random() < 0.3) this.history.crash('killed', process);
    else
      this.history.revoke(
        process,
        this.#logs.map((log) => log.place),
      );
  }

  /** The member commits, and another one goes on from there. */
  #handOver(): void {
    const member = this.#readers.shift()!;
    const positions = [...member.positions].map(([log, offset]): Position => ({ ...log.place, offset }));
    if (this.#random() < 0.7) {
      for (const [log, offset] of member.positions) this.#committed.set(log, offset);
      this.history.add({ kind: 'commit', process: member.process, group: GROUP, positions });
    }
    this.#stop(member);
    this.#startMember();
  }

  #poll(reader: ModelReader): void {
    const { process, isolation, positions } = reader;
    const log = this.#pick(this.#logs);
    const limit = log.limit(isolation);
    const records: ModelRecord[] = [];
    let position = Math.max(positions.get(log)!, log.start);
    for (let next = firstFrom(log.records, position); records.length < MAX_POLL_RECORDS; next++) {
      const record = log.records[next];
      if (record === undefined || record.offset >= limit) {
        position = Math.max(position, limit);
        break;
      }
      position = record.offset + 1;
      const hidden = isolation === 'read_committed' && record.transaction?.state === 'aborted';
      if (!record.removed && !hidden) records.push(record);
    }
    positions.set(log, position);
    const seen = records.map(({ offset, value }) => ({ ...log.place, offset, value }));
    this.history.poll(process, seen, isolation);
    if (reader.group !== undefined) this.history.finish(process, seen);
    if (position >= limit) this.history.end(process, { ...log.place, offset: limit });
  }

  #trim(log: ModelLog): void {
    const before = log.start + this.#below(Math.ceil((log.end - log.start) / 3) + 1);
    this.history.trim({ ...log.place, offset: before });
    log.start = before;
  }

  /** Removes one record that a later one of its key replaces, or a tombstone. */
  #compact(): void {
    const { records } = this.#logs[2]!;
    const at = this.#below(records.length);
    const record = records[at];
    if (record === undefined) return;
    const isReplaced = records.slice(at + 1, at + 200).some(({ key }) => key === record.key);
    record.removed ||= isReplaced || record.tombstone;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#below(items.length)]!;
  }
}

type Fate = 'refused' | 'lost' | 'answer lost' | 'no answer' | 'acknowledged';

/** @param chance in [0, 1) */
function fateOf(chance: number): Fate {
  if (chance < 0.04) return 'refused';
  if (chance < 0.08) return 'lost';
  if (chance < 0.12) return 'answer lost';
  if (chance < 0.16) return 'no answer';
  return 'acknowledged';
}

function failure(outcome: 'none' | 'unknown'): LogError {
  return new LogError('REQUEST_TIMED_OUT', 'no answer', { outcome });
}
