import type { Chance } from './chance.js';
import type { Network } from './network.js';
import type { Oracle } from './oracle.js';
import type { Timeline } from './timeline.js';
import type { ModelTopics } from './topics.js';

/** What the parts of a simulation share. */
export interface World {
  readonly timeline: Timeline;
  readonly chance: Chance;
  readonly network: Network;
  readonly topics: ModelTopics;
  readonly oracle: Oracle;
  /** Undefined: nobody reads along. */
  readonly trace: ((line: string) => void) | undefined;
}

/** How often a member sends a heartbeat at least, and for how long one is held at most. */
export const HEARTBEAT_MS = 300;
/** How long after that an answer is given up. */
export const ANSWER_MS = 300;
export const LONGEST_SESSION_MS = 3_000;
export const LONGEST_REBALANCE_MS = 2_000;
