/** Ctrl-C for commands that run until they are told to stop. */
import { EXIT_SIGINT, EXIT_SIGTERM } from './failure.js';

export interface Interrupt {
  readonly signal: AbortSignal;
  /** What a shell expects of a process that this signal ended; undefined while none has come. */
  readonly exitCode: number | undefined;
}

/** Aborts on the first SIGINT or SIGTERM; a second one ends the process at once. */
export function listenForInterrupt(): Interrupt {
  const controller = new AbortController();
  const interrupt: { signal: AbortSignal; exitCode: number | undefined } = {
    signal: controller.signal,
    exitCode: undefined,
  };
  const onSignal = (exitCode: number): void => {
    if (controller.signal.aborted) process.exit(exitCode);
    interrupt.exitCode = exitCode;
    controller.abort();
  };
  process.on('SIGINT', () => onSignal(EXIT_SIGINT));
  process.on('SIGTERM', () => onSignal(EXIT_SIGTERM));
  return interrupt;
}
