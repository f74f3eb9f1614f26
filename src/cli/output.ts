/** Standard output and error of the commands. */
import type { Writable } from 'node:stream';
import { EXIT_OK, OutputClosed } from './failure.js';

/** Output is handed to the system in pieces of about this size. */
const WRITE_BYTES = 64 * 1024;

/** The text, in UTF-8, and bytes that a command prints. Nothing is lost when the command waits for `flush` at its end. */
export class Output {
  readonly #stream: Writable;
  #chunks: Buffer[] = [];
  /** Text behind the chunks: encoding it whole costs a fraction of encoding line by line. */
  #text = '';
  /** About how much is queued. */
  #bytes = 0;
  #flushScheduled = false;
  #throwsWhenClosed = false;

  constructor(stream: Writable) {
    this.#stream = stream;
  }

  /** Whether a write is due: wait for `flush` before more is printed. */
  get full(): boolean {
    return this.#bytes >= WRITE_BYTES;
  }

  /** Whether a command that has something to put in order before it ends wants to learn by `flush` that nobody reads. */
  get throwsWhenClosed(): boolean {
    return this.#throwsWhenClosed;
  }

  /** From here on, `flush` rejects with OutputClosed when the output was closed, instead of the process being ended. */
  throwWhenClosed(): void {
    this.#throwsWhenClosed = true;
  }

  /** Queues a line; check `full` when printing many. */
  line(text: string): void {
    this.#text += text;
    this.#text += '\n';
    this.#bytes += text.length + 1;
  }

  /** Queues bytes, which must not change until they are flushed; check `full` when printing many. */
  bytes(bytes: Buffer): void {
    this.#takeText();
    this.#chunks.push(bytes);
    this.#bytes += bytes.length;
  }

  /** Hands everything queued to the system; resolves when it was taken. */
  async flush(): Promise<void> {
    if (this.#bytes === 0) return;
    this.#takeText();
    const chunk = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#bytes = 0;
    await new Promise<void>((resolve, reject) => {
      this.#stream.write(chunk, (error) => {
        if (error && this.#throwsWhenClosed) reject(new OutputClosed());
        // What a failure means is otherwise for `endQuietlyWhenClosed` to say.
        else resolve();
      });
    });
  }

  /** Flushes when the event loop turns: for output that may stay without a successor for long. */
  flushSoon(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      // What closed the output fails the next flush too, which somebody waits for.
      this.flush().catch(() => undefined);
    });
  }

  #takeText(): void {
    if (this.#text === '') return;
    this.#chunks.push(Buffer.from(this.#text));
    this.#text = '';
  }

  /** One JSON value on one line. */
  json(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  /** A table with aligned columns: names in capitals; numbers, and dashes for absent ones, to the right. */
  table(columns: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
    for (const line of formatTable(columns, rows)) this.line(line);
  }
}

const GAP = '  ';

/** Lines of a table, without colour and without spaces at their ends. */
export function formatTable(
  columns: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): readonly string[] {
  const numeric = columns.map((_, column) => isNumeric(rows.map((row) => row[column])));
  const widths = columns.map((name, column) =>
    rows.reduce((width, row) => Math.max(width, String(row[column] ?? '').length), name.length),
  );
  const format = (cells: readonly (string | number)[]): string =>
    cells
      .map((cell, column) => {
        const text = String(cell);
        const width = widths[column] ?? 0;
        return numeric[column] ? text.padStart(width) : text.padEnd(width);
      })
      .join(GAP)
      .trimEnd();
  return [columns.map((name) => name.toUpperCase()), ...rows].map(format);
}

/** Numbers, among them differences with their sign, and dashes where there is none. */
function isNumeric(cells: readonly (string | number | undefined)[]): boolean {
  const isNumber = (cell: string | number | undefined): boolean =>
    typeof cell === 'number' || /^\+\d+$/.test(cell ?? '');
  return cells.some(isNumber) && cells.every((cell) => cell === '-' || isNumber(cell));
}

/**
 * What `| head` does to a command: a closed pipe is no failure of ours, so the process ends with what it had, unless the
 * command sees to that itself.
 */
export function endQuietlyWhenClosed(stream: Writable, output: Output): void {
  stream.on('error', (error: Error & { code?: string }) => {
    if (error.code !== 'EPIPE') process.exit(1);
    if (!output.throwsWhenClosed) process.exit(process.exitCode ?? EXIT_OK);
  });
}

/** `1 record`, `2 records`, `1,234 records`. */
export function count(value: number, noun: string, plural: string = `${noun}s`): string {
  return `${value.toLocaleString('en-US')} ${value === 1 ? noun : plural}`;
}

/** Units of time with the number of each from which the next larger one is used. */
const TIME_UNITS = [
  { name: 'ms', ms: 1, limit: 1000 },
  { name: 's', ms: 1000, limit: 60 },
  { name: 'min', ms: 60_000, limit: 60 },
  { name: 'h', ms: 3_600_000, limit: 48 },
  { name: 'd', ms: 86_400_000, limit: Number.POSITIVE_INFINITY },
] as const;

/** A length of time as a person would tell it, to two digits: `0 s`, `850 ms`, `1.2 s`, `3 min`, `36 h`, `2 d`. */
export function formatDuration(durationMs: number): string {
  if (durationMs <= 0) return '0 s';
  for (const { name, ms, limit } of TIME_UNITS) {
    const exact = durationMs / ms;
    const rounded = exact < 9.95 && ms > 1 ? Math.round(exact * 10) / 10 : Math.round(exact);
    if (rounded < limit) return `${rounded.toLocaleString('en-US')} ${name}`;
  }
  return `${durationMs} ms`;
}
