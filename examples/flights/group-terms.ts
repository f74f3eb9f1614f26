/** What the demo and the workers of its group have agreed on. */

export const GROUP = 'delay-watch';
/** Short, so that one need not wait long for the partitions of a killed worker. The default is 45 s. */
export const SESSION_TIMEOUT_MS = 2_000;
/** What a killed worker has handled since its last commit is handled again by others. */
export const COMMIT_INTERVAL_MS = 500;

/** What a worker writes for a batch that it has handled; both offsets are included. */
export function handledLine(partition: number, firstOffset: number, lastOffset: number): string {
  return `${partition} ${firstOffset} ${lastOffset}\n`;
}

export interface HandledRange {
  readonly partition: number;
  readonly firstOffset: number;
  readonly lastOffset: number;
}

/** The ranges in a worker's file. A line that was cut off is none: its batch was not handled yet. */
export function handledRanges(text: string): readonly HandledRange[] {
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const [partition = -1, firstOffset = -1, lastOffset = -1] = line.split(' ').map(Number);
      return { partition, firstOffset, lastOffset };
    });
}
