import { LogError } from '../../core/errors.js';

interface Waiter<Result> {
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Work that goes on whether or not its callers wait for it. What is asked for again meanwhile is not begun again, and who
 * has given up is forgotten: however often impatient clients ask, they leave nothing behind.
 */
export class SharedWork<Result> {
  readonly #underWay = new Map<string, Set<Waiter<Result>>>();

  /**
   * @param key stands for the work
   * @throws LogError CANCELLED when `signal` aborts, else as `work`
   */
  wait(key: string, signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const waiters = this.#underWay.get(key) ?? this.#begin(key, work);
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        waiters.delete(waiter);
        reject(new LogError('CANCELLED', 'Nobody waits for the answer any more; what was asked for goes on.'));
      };
      const stop = (): void => signal.removeEventListener('abort', giveUp);
      const waiter: Waiter<Result> = {
        resolve: (result) => {
          stop();
          resolve(result);
        },
        reject: (error) => {
          stop();
          reject(error);
        },
      };
      waiters.add(waiter);
      if (signal.aborted) giveUp();
      else signal.addEventListener('abort', giveUp, { once: true });
    });
  }

  #begin(key: string, work: () => Promise<Result>): Set<Waiter<Result>> {
    const waiters = new Set<Waiter<Result>>();
    this.#underWay.set(key, waiters);
    const over = (settle: (waiter: Waiter<Result>) => void): void => {
      this.#underWay.delete(key);
      for (const waiter of waiters) settle(waiter);
    };
    work().then(
      (result) => over((waiter) => waiter.resolve(result)),
      (error: unknown) => over((waiter) => waiter.reject(error)),
    );
    return waiters;
  }
}
