/** Shows a group at work: a live table on a terminal, a line every now and then otherwise. */
import type { GroupDescription } from 'tidelog';

const LINE_EVERY_MS = 500;
const BAR_WIDTH = 24;
const ESCAPE = '\u001b[';

/** A partition as it is shown. */
interface Row {
  readonly partition: number;
  readonly committed: number;
  readonly end: number;
  readonly owner: string;
}

export class GroupView {
  /** When the group was first seen: what the processes of the workers take to start is not of interest. */
  #startedMs: number | undefined;
  readonly #isLive: boolean = process.stdout.isTTY;
  readonly #total: number;
  /** Lines of the table that stands on the terminal now. */
  #height = 0;
  #nextLineMs = 0;
  #lastLine = '';

  /** @param total the records that there are to handle */
  constructor(total: number) {
    this.#total = total;
  }

  /** @returns the lag of all partitions; those of which nothing is known yet count in full */
  show(group: GroupDescription): number {
    this.#startedMs ??= performance.now();
    const rows = rowsOf(group);
    const lag = this.#total - rows.reduce((sum, { committed }) => sum + committed, 0);
    if (this.#isLive) this.#draw(this.#table(group, rows, lag));
    else this.#print(group, rows, lag);
    return lag;
  }

  /** Something that happened. */
  note(text: string): void {
    if (this.#height > 0) this.#erase();
    console.log(`  ${this.#elapsed()}  ${text}`);
  }

  /** Leaves what was shown last. */
  end(): void {
    if (!this.#isLive && this.#lastLine !== '') console.log(this.#lastLine);
    this.#lastLine = '';
    this.#height = 0;
  }

  #elapsed(): string {
    const now = performance.now();
    return `${((now - (this.#startedMs ?? now)) / 1000).toFixed(1).padStart(5)} s`;
  }

  #print({ state }: GroupDescription, rows: readonly Row[], lag: number): void {
    this.#lastLine = `  ${this.#elapsed()}  lag ${count(lag)}  ${state.padEnd(11)}  ${ownersOf(rows)}`;
    if (performance.now() < this.#nextLineMs) return;
    this.#nextLineMs = performance.now() + LINE_EVERY_MS;
    console.log(this.#lastLine);
    this.#lastLine = '';
  }

  #table({ state, memberCount }: GroupDescription, rows: readonly Row[], lag: number): readonly string[] {
    return [
      `  ${this.#elapsed()}  ${state}, ${memberCount} members, lag ${count(lag)}`,
      ...rows.map(({ partition, committed, end, owner }) => {
        const share = end === 0 ? 1 : committed / end;
        const bar = '\u2588'.repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, '\u2591');
        return `    partition ${partition} ${bar} lag ${count(end - committed)}  ${owner}`;
      }),
    ];
  }

  #draw(lines: readonly string[]): void {
    this.#erase();
    for (const line of lines) process.stdout.write(`${line}\n`);
    this.#height = lines.length;
  }

  #erase(): void {
    if (this.#height > 0) process.stdout.write(`${ESCAPE}${this.#height}A${ESCAPE}J`);
    this.#height = 0;
  }
}

function rowsOf({ partitions, members }: GroupDescription): readonly Row[] {
  const names = new Map(members.map(({ memberId, clientId }) => [memberId, clientId]));
  return partitions.map(({ partition, committedOffset, highWatermark, memberId }) => ({
    partition,
    committed: committedOffset ?? 0,
    end: highWatermark ?? 0,
    owner: memberId === undefined ? '-' : (names.get(memberId) ?? '-'),
  }));
}

/** Such as `worker-1: 0 1  worker-2: 2 3`. */
function ownersOf(rows: readonly Row[]): string {
  const owned = new Map<string, number[]>();
  for (const { owner, partition } of rows) owned.set(owner, [...(owned.get(owner) ?? []), partition]);
  return [...owned]
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([owner, partitions]) => `${owner}: ${partitions.join(' ')}`)
    .join('  ');
}

function count(records: number): string {
  return records.toLocaleString('en-US').padStart(9);
}
