/** `tidelog produce`: lines of a file or of standard input into a topic, as fast as the broker takes them. */
import { type Command, Option } from 'commander';
import { CODECS, type Codec } from '../../batch/layout.js';
import type { Client } from '../../client/client.js';
import type { SendManyResult } from '../../client/completions.js';
import type { Acks } from '../../client/options.js';
import { LogError } from '../../core/errors.js';
import { brokerOption, wholeNumber } from '../arguments.js';
import { Interrupted, UsageError } from '../failure.js';
import { InputError, LineSplitter, readChunks, STANDARD_INPUT } from '../input.js';
import { listenForInterrupt } from '../interrupt.js';
import { count } from '../output.js';
import type { CommandContext } from '../program.js';
import { type CliRecord, linesParser, parseJsonRecord, type RecordParser } from '../record-parser.js';
import { withClient } from '../with-client.js';

interface ProduceOptions {
  readonly file: string;
  readonly keySeparator?: string;
  readonly format: 'lines' | 'json';
  readonly partition?: number;
  readonly acks: Acks;
  readonly compression: Codec;
  readonly broker?: string;
}

const HELP = `
With --format json each line is an object {"key", "value", "headers", "timestamp", "partition"}; only the value is
required. Text stands for its UTF-8 bytes; keyBase64 and valueBase64 hold other bytes. The output of
"tidelog consume --format json" is accepted as it is. The first line that cannot be understood ends the command with
exit code 1; the records before it are delivered. How many records went where is told on standard error.

Examples:
  printf 'hello\\nworld\\n' | tidelog produce greetings
  tidelog produce orders --file orders.txt --key-separator : --compression zstd
  tidelog produce orders --format json --file orders.jsonl --acks written`;

export function configure(command: Command, context: CommandContext): void {
  command
    .argument('<topic>')
    .option('--file <file>', 'The input; - is standard input.', STANDARD_INPUT)
    .option('--key-separator <sep>', 'What stands between key and value in a line. Default: lines are values.')
    .addOption(new Option('--format <format>', 'What a line is.').choices(['lines', 'json']).default('lines'))
    .option('--partition <n>', 'Where to write all records. Default: by key.', wholeNumber(0))
    .addOption(
      new Option('--acks <acks>', 'What the broker confirms: nothing, that records survive its end, or power loss.')
        .choices(['none', 'written', 'durable'])
        .default('durable'),
    )
    .addOption(new Option('--compression <codec>', 'Codec of the batches.').choices(CODECS).default('none'))
    .addOption(brokerOption())
    .addHelpText('after', HELP)
    .action((topic: string, options: ProduceOptions) => produce(topic, options, context));
}

async function produce(name: string, options: ProduceOptions, context: CommandContext): Promise<void> {
  const parse = parserFor(options);
  await withClient(options.broker, context, async (client) => {
    // Before any input is read: nobody wants to type a line to learn that the topic does not exist.
    await client.admin.getTopic(name);
    const interrupt = listenForInterrupt();
    const input = new RecordInputStream(options, parse, interrupt.signal);
    const result = await send(client, name, options, input);
    if (result.count > 0 || input.failure === undefined) {
      process.stderr.write(`${summary(name, result, options.acks)}\n`);
    }
    if (input.failure !== undefined) throw input.failure;
    if (interrupt.exitCode !== undefined) throw new Interrupted(interrupt.exitCode);
  });
}

function parserFor({ format, keySeparator }: ProduceOptions): RecordParser {
  if (format === 'lines') {
    if (keySeparator === '') throw new UsageError('--key-separator must not be empty.');
    return linesParser(keySeparator);
  }
  if (keySeparator !== undefined) throw new UsageError('--key-separator goes with --format lines only.');
  return parseJsonRecord;
}

/** The records of the input, until it ends, its user interrupts, or a line cannot be understood. */
class RecordInputStream implements AsyncIterable<CliRecord> {
  /** Why the input ended before its end, if so. */
  failure: LogError | undefined;
  readonly #options: ProduceOptions;
  readonly #parse: RecordParser;
  readonly #signal: AbortSignal;
  readonly #lines: LineSplitter = new LineSplitter();

  constructor(options: ProduceOptions, parse: RecordParser, signal: AbortSignal) {
    this.#options = options;
    this.#parse = parse;
    this.#signal = signal;
  }

  /** Number of the line that was read last. */
  get lineNumber(): number {
    return this.#lines.lineNumber;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<CliRecord> {
    try {
      for await (const chunk of readChunks(this.#options.file, this.#signal))
        yield* this.#records(this.#lines.split(chunk));
      if (!this.#signal.aborted) yield* this.#records(this.#lines.end());
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      this.failure = new LogError('INVALID_REQUEST', `${error.message}.`, { cause: error });
    }
  }

  *#records(lines: Iterable<Buffer>): Iterable<CliRecord> {
    const { partition } = this.#options;
    for (const line of lines) {
      const record = this.#parseLine(line);
      if (record !== undefined) yield partition === undefined ? record : { ...record, partition };
    }
  }

  #parseLine(line: Buffer): CliRecord | undefined {
    try {
      return this.#parse(line);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      const source = this.#options.file === STANDARD_INPUT ? 'standard input' : this.#options.file;
      throw new InputError(
        `Line ${this.lineNumber} of ${source} is not a record: ${error.message}. The records before it were sent; ` +
          'mend the line and go on from there',
      );
    }
  }
}

async function send(
  client: Client,
  name: string,
  { acks, compression }: ProduceOptions,
  input: RecordInputStream,
): Promise<SendManyResult> {
  const { bytes, nullable, topic } = await import('../../client/serdes.js');
  const target = topic(name, { key: bytes(), value: nullable(bytes()) });
  const producer = client.producer({ acks, compression });
  try {
    return await producer.sendMany(target, input);
  } catch (error) {
    throw withPosition(error, input.lineNumber);
  } finally {
    await producer.close();
  }
}

/** The failure of the record itself, with what its user needs to go on. */
function withPosition(error: unknown, lineNumber: number): unknown {
  if (!(error instanceof LogError) || !(error.cause instanceof LogError)) return error;
  const { delivered_count: delivered, failed_count: failed } = error.metadata;
  if (delivered === undefined || failed === undefined) return error;
  const counts = `${count(Number(delivered), 'record')} delivered, ${failed} failed, input read up to line ${lineNumber}.`;
  return new LogError(error.reason, `${error.cause.message} (${counts})`, { metadata: error.metadata, cause: error });
}

function summary(name: string, { count: total, partitions }: SendManyResult, acks: Acks): string {
  const done = acks === 'none' ? 'sent' : 'delivered';
  const shares = partitions.map((range) => `partition ${range.partition}: ${range.count}`).join(', ');
  return `${count(total, 'record')} ${done} to ${name}${shares === '' ? '' : ` (${shares})`}`;
}
