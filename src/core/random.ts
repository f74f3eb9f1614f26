import { randomBytes, randomUUID } from 'node:crypto';

/** The only source of chance. Injected, so that a test can repeat a run from its seed. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** A random lower-case UUID (version 4). */
  uuid(): string;
}

export const systemRandom: Random = {
  next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
  uuid: () => randomUUID(),
};
