/** Records of a topic on standard output. */
import type { BatchCursor } from '../client/record-batch.js';
import type { Output } from './output.js';
import { formatJsonRecord, type PrintableFields } from './record-format.js';

export interface PrintOptions {
  readonly max?: number;
  readonly format: 'value' | 'json';
}

/** A record batch, as far as printing goes. */
export interface PrintableBatch {
  readonly partition: number;
  cursor(): BatchCursor | Promise<BatchCursor>;
}

const LINE_FEED: Buffer = Buffer.from('\n');

/** Prints records, up to a number of them. */
export class RecordPrinter {
  readonly #output: Output;
  readonly #topic: string;
  readonly #format: 'value' | 'json';
  #left: number;

  constructor(output: Output, topic: string, { format, max }: PrintOptions) {
    this.#output = output;
    this.#topic = topic;
    this.#format = format;
    this.#left = max ?? Number.POSITIVE_INFINITY;
  }

  /** Whether another record is wanted. */
  get wantsMore(): boolean {
    return this.#left > 0;
  }

  /** Resolves when there is room for more. Ends early, without an error, once `signal` is aborted. */
  async printBatch(batch: PrintableBatch, signal?: AbortSignal): Promise<void> {
    const cursor = await batch.cursor();
    while (this.wantsMore && !signal?.aborted && cursor.next()) {
      this.printRecord(batch.partition, cursor);
      if (this.#output.full) await this.#output.flush();
    }
    // Whoever follows wants to see a record when it comes.
    this.#output.flushSoon();
  }

  /** Check the output's `full` when printing many. */
  printRecord(partition: number, record: PrintableFields): void {
    this.#left--;
    const { offset, timestampMs, key, value, headers } = record;
    if (this.#format === 'json') {
      const fields = { partition, offset, timestampMs, key, value, headers };
      this.#output.line(formatJsonRecord({ topic: this.#topic, ...fields }));
      return;
    }
    if (value !== null) this.#output.bytes(value);
    this.#output.bytes(LINE_FEED);
  }
}
