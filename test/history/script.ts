/** Hand-made histories in few words: of partition 0 of one topic, unless said otherwise. */
import { LogError } from '../../src/core/errors.js';
import type { EndTransactionEvent, PollEvent, Position } from './events.js';
import { History, type PendingSend, type SendDetails } from './history.js';

export const TOPIC = 'orders';

interface Sending extends SendDetails {
  /** The producer; default `p`. */
  readonly by?: string;
}

export class Script extends History {
  /** Sends without an answer. */
  sends(value: string, { by = 'p', ...details }: Sending = {}): PendingSend {
    return this.send(by, TOPIC, value, details);
  }

  /** Sends and has the answer at once. */
  acked(offset: number, value: string, details?: Sending): void {
    this.sends(value, details).ack(0, offset);
  }

  failed(value: string, outcome: 'none' | 'unknown', details?: Sending): void {
    this.sends(value, details).error(new LogError('REQUEST_TIMED_OUT', 'failed', { outcome }));
  }

  reads(process: string, from: number, group?: string): void {
    this.assign(process, [at(from)], group);
  }

  sees(process: string, ...records: readonly (readonly [offset: number, value: string])[]): void {
    this.poll(process, seen(records));
  }

  /** As `sees`, with open and aborted transactions. */
  seesAll(process: string, ...records: readonly (readonly [offset: number, value: string])[]): void {
    this.poll(process, seen(records), 'read_uncommitted');
  }

  ends(process: string, offset: number): void {
    this.end(process, at(offset));
  }

  stops(process: string): void {
    this.revoke(process, [{ topic: TOPIC, partition: 0 }]);
  }

  trims(before: number): void {
    this.trim(at(before));
  }

  commits(process: string, group: string, offset: number): void {
    this.add({ kind: 'commit', process, group, positions: [at(offset)] });
  }

  /** Is done with the records at these offsets. */
  finishes(process: string, ...offsets: readonly number[]): void {
    this.finish(process, offsets.map(at));
  }

  asksToReset(group: string, offset: number): void {
    this.add({ kind: 'ask-reset', group, positions: [at(offset)] });
  }

  resets(group: string, offset: number): void {
    this.add({ kind: 'reset-offsets', group, positions: [at(offset)] });
  }

  asksToCommit(transaction: string): void {
    this.add({ kind: 'commit-transaction', process: 'p', transaction });
  }

  transactionEnds(transaction: string, result: EndTransactionEvent['result']): void {
    this.add({ kind: 'end-transaction', process: 'p', transaction, result });
  }
}

function at(offset: number): Position {
  return { topic: TOPIC, partition: 0, offset };
}

function seen(records: readonly (readonly [offset: number, value: string])[]): PollEvent['records'] {
  return records.map(([offset, value]) => ({ topic: TOPIC, partition: 0, offset, value }));
}
