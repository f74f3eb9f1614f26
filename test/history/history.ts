/** Writes down what clients do and see while a test runs. */
import { LogError } from '../../src/core/errors.js';
import type { HistoryEvent, Place, PollEvent, Position, SeenRecord } from './events.js';

/** What a send is about. */
export interface SendDetails {
  readonly key?: string | undefined;
  readonly tombstone?: boolean | undefined;
  readonly transaction?: string | undefined;
}

/** A send that waits for its answer. */
export interface PendingSend {
  ack(partition: number, offset: number): void;
  /** The outcome of anything but a LogError is unknown. */
  error(error: unknown): void;
}

export class History {
  readonly #events: HistoryEvent[] = [];
  #sends = 0;

  get events(): readonly HistoryEvent[] {
    return this.#events;
  }

  /** Acknowledged sends so far. */
  acks = 0;

  add(event: HistoryEvent): void {
    this.#events.push(event);
  }

  send(process: string, topic: string, value: string, details: SendDetails = {}): PendingSend {
    const send = ++this.#sends;
    this.add({ kind: 'send', process, send, topic, value, ...details });
    return {
      ack: (partition, offset) => {
        this.acks++;
        this.add({ kind: 'ack', process, send, partition, offset });
      },
      error: (error) => {
        const outcome = error instanceof LogError ? error.outcome : 'unknown';
        this.add({ kind: 'error', process, send, outcome });
      },
    };
  }

  poll(process: string, records: readonly SeenRecord[], isolation?: PollEvent['isolation']): void {
    if (records.length > 0) this.add({ kind: 'poll', process, records, isolation });
  }

  assign(process: string, positions: readonly Position[], group?: string): void {
    this.add({ kind: 'assign', process, group, positions });
  }

  revoke(process: string, places: readonly Place[]): void {
    this.add({ kind: 'revoke', process, places });
  }

  finish(process: string, records: readonly Position[]): void {
    if (records.length > 0) this.add({ kind: 'finish', process, records });
  }

  end(process: string, end: Position): void {
    this.add({ kind: 'end', process, end });
  }

  trim(before: Position): void {
    this.add({ kind: 'trim', before });
  }

  /** @param process a client that was killed or paused */
  crash(what: string, process?: string): void {
    this.add({ kind: 'crash', what, process });
  }
}
