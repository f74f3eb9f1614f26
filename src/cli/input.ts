/** Input of `tidelog produce`: files and standard input as lines, never more than a piece of them in memory. */
import { open } from 'node:fs/promises';
import { errorMessage } from '../core/errors.js';

/** Bytes of one read of a file. */
const READ_BYTES = 256 * 1024;
/** The longest line that is taken: no broker accepts a record that large. */
export const MAX_LINE_BYTES: number = 64 * 1024 * 1024;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** The input cannot be read, or a line of it cannot be understood. */
export class InputError extends Error {
  override readonly name = 'InputError';
}

/** The name of standard input where a file is expected. */
export const STANDARD_INPUT = '-';

/**
 * Pieces of a file, or of standard input for `-`. A piece is valid until the next one is asked for.
 * Ends early, without an error, once `signal` is aborted.
 * @throws InputError
 */
export function readChunks(path: string, signal: AbortSignal): AsyncIterable<Buffer> {
  return path === STANDARD_INPUT ? readStandardInput(signal) : readFile(path, signal);
}

async function* readStandardInput(signal: AbortSignal): AsyncIterable<Buffer> {
  const onAbort = (): void => {
    process.stdin.destroy();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    for await (const chunk of process.stdin) {
      if (signal.aborted) return;
      yield chunk as Buffer;
    }
  } catch (error) {
    if (!signal.aborted) throw new InputError(`Standard input cannot be read: ${errorMessage(error)}`);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

async function* readFile(path: string, signal: AbortSignal): AsyncIterable<Buffer> {
  try {
    const file = await open(path);
    try {
      const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
      while (!signal.aborted) {
        // Without a position: a pipe that was named in place of a file has none.
        const { bytesRead } = await file.read(buffer, 0, READ_BYTES, null);
        if (bytesRead === 0) return;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new InputError(fileFailure(path, error));
  }
}

function fileFailure(path: string, error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') return `There is no file ${path}`;
  if (code === 'EISDIR') return `${path} is a directory, not a file`;
  return `${path} cannot be read: ${errorMessage(error)}`;
}

/** Splits pieces of input into lines and counts them. */
export class LineSplitter {
  /** Number of the line that was yielded last, from 1. */
  lineNumber = 0;
  #rest: Buffer[] = [];
  #restBytes = 0;

  /**
   * The lines that end in `chunk`, without their line feeds (LF or CRLF); views on it, valid as long as it is.
   * @throws InputError when a line is longer than MAX_LINE_BYTES
   */
  *split(chunk: Buffer): Iterable<Buffer> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LINE_FEED, start);
      if (end < 0) break;
      this.lineNumber++;
      yield withoutCarriageReturn(this.#join(chunk.subarray(start, end)));
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  /** The last line, if the input does not end in a line feed. */
  *end(): Iterable<Buffer> {
    if (this.#restBytes === 0) return;
    this.lineNumber++;
    yield this.#join(Buffer.alloc(0));
  }

  #keep(part: Buffer): void {
    this.#restBytes += part.length;
    if (this.#restBytes > MAX_LINE_BYTES) {
      throw new InputError(`line ${this.lineNumber + 1} is longer than ${MAX_LINE_BYTES} bytes`);
    }
    // The piece of input is only lent to us.
    this.#rest.push(Buffer.from(part));
  }

  #join(end: Buffer): Buffer {
    if (this.#restBytes === 0) return end;
    const line = Buffer.concat([...this.#rest, end]);
    this.#rest = [];
    this.#restBytes = 0;
    return line;
  }
}

function withoutCarriageReturn(line: Buffer): Buffer {
  return line[line.length - 1] === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
}
