/** An administrator of a group, who writes down in a history what the group has committed and what it is reset to. */
import { Channel } from '../../../src/client/channel.js';
import { type Method, methods } from '../../../src/client/methods.js';
import { systemClock } from '../../../src/core/clock.js';
import { LogError } from '../../../src/core/errors.js';
import { until } from '../../support/until.js';
import type { Position } from '../events.js';
import type { History } from '../history.js';

/** Its name in the history. */
const PROCESS = 'administrator';
const TIMEOUT_MS = 10_000;

/** Calls one after the other: what it learns of commits is then never from before a reset that it made. */
export class GroupAdmin implements Disposable {
  readonly #history: History;
  readonly #group: string;
  readonly #channel: Channel;

  constructor(history: History, group: string, address: string) {
    this.#history = history;
    this.#group = group;
    this.#channel = new Channel(address, PROCESS, systemClock);
  }

  /** What the group has committed. @throws LogError */
  async committed(): Promise<Position[]> {
    const request = { groupId: this.#group, memberId: '', memberEpoch: 0, topics: [] };
    const { offsets } = await this.#call(methods.fetchOffsets, request);
    const positions = offsets
      .filter(({ offset }) => offset >= 0)
      .map(({ topic, partition, offset }): Position => ({ topic, partition, offset }));
    this.#history.add({ kind: 'commit', process: PROCESS, group: this.#group, positions });
    return positions;
  }

  /** @throws LogError */
  async reset({ topic, partition, offset }: Position): Promise<void> {
    const about = { group: this.#group, positions: [{ topic, partition, offset }] };
    this.#history.add({ kind: 'ask-reset', ...about });
    const request = { groupId: this.#group, topic, partitions: [partition], offset, validateOnly: false };
    await this.#call(methods.resetGroupOffsets, request);
    this.#history.add({ kind: 'reset-offsets', ...about });
  }

  /** Waits while the broker reads its groups, as it does after its start. */
  async #call<Request, Response>(method: Method<Request, Response>, request: Request): Promise<Response> {
    let response: Response | undefined;
    await until(async () => {
      response = await this.#channel.unary(method, request, { timeoutMs: TIMEOUT_MS }).catch(ignoreLoading);
      return response !== undefined;
    }, 'the groups are loaded');
    return response!;
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}

function ignoreLoading(error: unknown): undefined {
  if (!(error instanceof LogError) || error.reason !== 'COORDINATOR_LOAD_IN_PROGRESS') throw error;
}
