import type { ProducerIdentity, TransactionPartition } from '../../../../src/broker/transactions/coordinator-types.js';
import type { transition } from '../../../../src/broker/transactions/transaction.js';
import type { Chance } from '../../groups/simulation/chance.js';
import type { Timeline } from '../../groups/simulation/timeline.js';
import type { Defects } from './defects.js';
import type { Inputs } from './inputs.js';
import type { Network } from './network.js';
import type { Oracle } from './oracle.js';

/** What goes wrong, and how often. */
export interface Weather {
  /** Else nothing does. */
  isStormy: boolean;
  /** Of the broker, before each step. */
  readonly stopsPerStep: number;
  readonly longestPauseMs: number;
}

/** What the parts of a simulation share. */
export interface World {
  readonly timeline: Timeline;
  readonly chance: Chance;
  readonly network: Network;
  readonly oracle: Oracle;
  readonly inputs: Inputs;
  readonly defects: Defects;
  readonly transition: typeof transition;
  readonly weather: Weather;
  /** Undefined: nobody reads along. */
  readonly trace: ((line: string) => void) | undefined;
}

export const PARTITION_COUNT = 3;
/** Between two steps of the broker. */
export const LONGEST_STEP_MS = 4;
/** Of a transaction. */
export const LONGEST_TIMEOUT_MS = 20_000;
/** Each transaction has offsets of all of them. */
export const GROUPS: readonly string[] = ['g0', 'g1'];

const TOPIC_ID = '00000000-0000-4000-8000-000000000001';

export const PLACES: readonly TransactionPartition[] = Array.from({ length: PARTITION_COUNT }, (_, partition) => {
  return { topic: 't', topicId: TOPIC_ID, partition };
});

/** What a write to a disk takes, in ms. */
export function writeMs(chance: Chance): number {
  return chance.of(0.8) ? chance.between(1, 6) : chance.between(1, 200);
}

/** Of a transaction, as everybody knows it. */
export function keyOf({ producerId, producerEpoch }: ProducerIdentity): string {
  return `${producerId}/${producerEpoch}`;
}

/** What one transaction does: it reads an input from one offset to another, and gives out each record of it. */
export interface Work {
  readonly input: string;
  /** Under which the input was assigned to who does it. */
  readonly memberEpoch: number;
  readonly from: number;
  readonly to: number;
}

/** What a client asks. */
export type Request =
  | {
      readonly kind: 'init';
      readonly transactionalId: string;
      readonly timeoutMs: number;
      readonly current: ProducerIdentity | undefined;
    }
  | {
      readonly kind: 'produce';
      readonly transactionalId: string;
      readonly producer: ProducerIdentity;
      readonly work: Work;
      readonly partition: number;
      readonly sequence: number;
      /** Of the input. */
      readonly offsets: readonly number[];
    }
  | {
      readonly kind: 'add-offsets';
      readonly transactionalId: string;
      readonly producer: ProducerIdentity;
      readonly work: Work;
      readonly groupId: string;
    }
  | {
      readonly kind: 'end';
      readonly producer: ProducerIdentity;
      readonly transactionalId: string;
      readonly commit: boolean;
    }
  | { readonly kind: 'fetch-offset'; readonly transactionalId: string };

export type Answer =
  | { readonly kind: 'identity'; readonly identity: ProducerIdentity }
  | { readonly kind: 'done' }
  | ({ readonly kind: 'offset'; readonly offset: number } & Pick<Work, 'input' | 'memberEpoch'>)
  | { readonly kind: 'refused'; readonly reason: string };

export type Reply = (answer: Answer) => void;

export function refusal(reason: string): Answer {
  return { kind: 'refused', reason };
}
