/** What a member in a process of its own is told as it starts. */
import type { Handling } from '../recorded/consumer.js';

export interface MemberOptions {
  readonly address: string;
  /** Its name in the history. */
  readonly process: string;
  readonly group: string;
  readonly topics: readonly string[];
  readonly handling: Handling;
  readonly instanceId?: string | undefined;
  readonly sessionTimeoutMs: number;
  readonly autoCommitIntervalMs: number;
  readonly requestTimeoutMs: number;
  /** Most records take at most this long, in ms. */
  readonly maxHandleMs: number;
  readonly seed: number;
  /** The file that its events go to. */
  readonly eventsFile: string;
}
