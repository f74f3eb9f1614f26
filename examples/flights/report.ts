/** What the demo prints: steps with progress bars, and checks. */
import { Presets, SingleBar } from 'cli-progress';

const MIB = 1024 * 1024;
/** A bar is drawn anew after this many records: drawing must not be what takes the time. */
const UPDATE_EVERY = 5_000;

/** Counts the records of one step and says at its end how fast it was. */
export class Step {
  readonly #bar: SingleBar | undefined;
  readonly #name: string;
  readonly #startedMs: number = performance.now();
  #records = 0;
  #bytes = 0;

  constructor(name: string, total: number) {
    this.#name = name;
    if (!process.stdout.isTTY) return;
    const format = `  ${name.padEnd(24)} {bar} {percentage}% | {value}/{total} records`;
    this.#bar = new SingleBar(
      { format, hideCursor: true, clearOnComplete: true, stream: process.stdout },
      Presets.shades_classic,
    );
    this.#bar.start(total, 0);
  }

  add(bytes: number, records = 1): void {
    this.#bytes += bytes;
    const before = this.#records;
    this.#records += records;
    if (Math.floor(before / UPDATE_EVERY) !== Math.floor(this.#records / UPDATE_EVERY))
      this.#bar?.update(this.#records);
  }

  end(): void {
    this.#bar?.stop();
    const seconds = (performance.now() - this.#startedMs) / 1000;
    const perSecond = Math.round(this.#records / seconds).toLocaleString('en-US');
    const speed = `${perSecond} records/s, ${(this.#bytes / MIB / seconds).toFixed(1)} MiB/s`;
    const what = `${this.#records.toLocaleString('en-US')} records in ${seconds.toFixed(2)} s`;
    console.log(`  ${this.#name.padEnd(24)} ${what} (${speed})`);
  }
}

/** Prints the outcome of each check and remembers whether any has failed. */
export class Checks {
  #failed = 0;

  get failedCount(): number {
    return this.#failed;
  }

  check(what: string, holds: boolean): void {
    if (!holds) this.#failed++;
    console.log(`  ${holds ? 'ok     ' : 'FAILED '} ${what}`);
  }
}

export function heading(text: string): void {
  console.log(`\n${text}`);
}
