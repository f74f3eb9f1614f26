import { setImmediate as nextTurn } from 'node:timers/promises';

/**
 * Lets at most `limit` callers through in one turn of the event loop, the others in the turns after it: what many have
 * waited for together would else set all of them to work at once, with no turn for anybody else.
 */
export class Turnstile {
  readonly #limit: number;
  #count = 0;
  /** The end of the turn in which the first of those counted passed. */
  #turn: Promise<void> | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  async pass(): Promise<void> {
    while (this.#count >= this.#limit) await this.#turn;
    this.#count++;
    this.#turn ??= nextTurn().then(() => {
      this.#count = 0;
      this.#turn = undefined;
    });
  }
}
