/** An administrator of a group, who writes down in a history what the group has committed and what it is reset to. */
import { Channel } from '../../../src/client/channel.js';
import { methods } from '../../../src/client/methods.js';
import { systemClock } from '../../../src/core/clock.js';
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
    const { offsets } = await this.#channel.unary(methods.fetchOffsets, request, { timeoutMs: TIMEOUT_MS });
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
    await this.#channel.unary(methods.resetGroupOffsets, request, { timeoutMs: TIMEOUT_MS });
    this.#history.add({ kind: 'reset-offsets', ...about });
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}
