/** What a worker of the pipeline in a process of its own is told as it starts. */
export interface WorkerOptions {
  readonly address: string;
  /** Its name in the history: another one each time that it is started. */
  readonly process: string;
  /** The same each time that it is started. */
  readonly transactionalId: string;
  readonly group: string;
  readonly input: string;
  readonly outputs: readonly string[];
  readonly sessionTimeoutMs: number;
  readonly transactionTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** Of its transactions this share is given up half way, 0 to 1. */
  readonly abortShare: number;
  /** Most transactions rest at most this long in their midst, in ms. */
  readonly maxRestMs: number;
  /** Its sends are numbered from here on. */
  readonly firstSend: number;
  readonly seed: number;
  /** The file that its events go to. */
  readonly eventsFile: string;
}
