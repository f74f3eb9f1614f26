import { ByteBudget } from '../../core/byte-budget.js';
import { LogError } from '../../core/errors.js';

export interface BudgetLimits {
  /** Bytes in flight of one stream. */
  readonly streamBytes: number;
  /** Bytes in flight of one connection. */
  readonly connectionBytes: number;
  /** Bytes in flight of the whole broker. */
  readonly totalBytes: number;
}

interface Connection {
  readonly budget: ByteBudget;
  users: number;
}

/** Wait before trying again when the budget is used up, in ms. */
const RETRY_AFTER_MS = 100;

/**
 * What calls of each kind may have in flight. They have no part in each other's room, so that streams, which wait for
 * it and take all that there is, leave some to the rest, and those who do not read leave some to those who write.
 */
export interface BudgetsByKind {
  readonly unary: ConnectionBudgets;
  readonly produceStreams: ConnectionBudgets;
  readonly commitStreams: ConnectionBudgets;
  readonly fetchStreams: ConnectionBudgets;
}

/** How much of the room each kind has. Commits are small, and must not wait behind records. */
const SHARES: Readonly<Record<keyof BudgetsByKind, number>> = {
  unary: 4 / 16,
  produceStreams: 5 / 16,
  commitStreams: 1 / 16,
  fetchStreams: 6 / 16,
};

export function budgetsByKind(limits: BudgetLimits): BudgetsByKind {
  const budgetOf = (kind: keyof BudgetsByKind): ConnectionBudgets =>
    new ConnectionBudgets({ ...limits, totalBytes: limits.totalBytes * SHARES[kind] });
  return {
    unary: budgetOf('unary'),
    produceStreams: budgetOf('produceStreams'),
    commitStreams: budgetOf('commitStreams'),
    fetchStreams: budgetOf('fetchStreams'),
  };
}

/** Byte budgets of the open connections, by the peer's address and port. */
export class ConnectionBudgets {
  readonly #limits: BudgetLimits;
  readonly #total: ByteBudget;
  readonly #connections = new Map<string, Connection>();

  constructor(limits: BudgetLimits) {
    this.#limits = limits;
    this.#total = new ByteBudget(limits.totalBytes);
  }

  get streamLimitBytes(): number {
    return this.#limits.streamBytes;
  }

  /** What all connections share. */
  get total(): ByteBudget {
    return this.#total;
  }

  /** The budget of the peer's connection, shared by its calls until each has released it. */
  acquire(peer: string): { budget: ByteBudget; release: () => void } {
    let connection = this.#connections.get(peer);
    if (connection === undefined) {
      connection = { budget: new ByteBudget(this.#limits.connectionBytes, this.#total), users: 0 };
      this.#connections.set(peer, connection);
    }
    const held = connection;
    held.users++;
    return {
      budget: held.budget,
      release: (): void => {
        held.users--;
        if (held.users === 0 && this.#connections.get(peer) === held) this.#connections.delete(peer);
      },
    };
  }

  /**
   * Runs a unary call with its bytes charged. A unary request is in memory already and cannot be paused, so a
   * connection beyond its budget is told to come back.
   * @throws LogError RESOURCE_LIMIT with RetryInfo
   */
  async whileCharged<T>(peer: string, bytes: number, work: () => Promise<T>): Promise<T> {
    const { budget, release } = this.acquire(peer);
    try {
      refuseBeyond(budget);
      budget.charge(bytes);
      try {
        return await work();
      } finally {
        budget.release(bytes);
      }
    } finally {
      release();
    }
  }
}

/**
 * For unary calls, which cannot be slowed down.
 * @throws LogError RESOURCE_LIMIT with RetryInfo when there is no room at some level
 */
export function refuseBeyond(budget: ByteBudget): void {
  const exhausted = budget.exhausted;
  if (exhausted === undefined) return;
  throw new LogError(
    'RESOURCE_LIMIT',
    `${exhausted.usedBytes} bytes are in flight; the limit is ${exhausted.limitBytes}. ` +
      'Wait for answers before sending more, or use a stream, which is slowed down instead.',
    {
      retryAfterMs: RETRY_AFTER_MS,
      metadata: { in_flight_bytes: exhausted.usedBytes, limit_bytes: exhausted.limitBytes },
    },
  );
}
