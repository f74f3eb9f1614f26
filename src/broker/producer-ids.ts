/** Producer ids, which nobody is ever given twice. */
import { LogError } from '../core/errors.js';
import type { MetadataStore } from '../storage/engine.js';

/** The first id that nobody has been given. */
const NEXT_ID_KEY = 'broker/producer-ids';
/** Ids taken at once: one durable write for so many producers. */
const BLOCK_SIZE = 1000;

/**
 * Hands out producer ids, from blocks that are taken durably from the metadata store. Invariant: an id lies in a block
 * that this object alone has taken, so that no id comes twice, whoever else uses the store and however this process ends.
 * What is left of a block then is lost; 2^53 ids last.
 */
export class ProducerIds {
  readonly #metadata: MetadataStore;
  #next = 0;
  #end = 0;
  /** The block being taken, shared by all who wait for one. */
  #taking: Promise<void> | undefined;

  constructor(metadata: MetadataStore) {
    this.#metadata = metadata;
  }

  /** @throws LogError STORAGE_FULL, STORAGE_ERROR, RESOURCE_LIMIT, CLOSED of the metadata store */
  async allocate(): Promise<number> {
    while (this.#next === this.#end) {
      this.#taking ??= this.#takeBlock().finally(() => {
        this.#taking = undefined;
      });
      await this.#taking;
    }
    return this.#next++;
  }

  async #takeBlock(): Promise<void> {
    for (;;) {
      const entry = await this.#metadata.get(NEXT_ID_KEY);
      const start = entry === undefined ? 0 : toId(entry.value);
      const end = toId(String(start + BLOCK_SIZE));
      const result = await this.#metadata.compareAndSet(NEXT_ID_KEY, String(end), entry?.version ?? 0);
      if (!result.ok) continue;
      this.#next = start;
      this.#end = end;
      return;
    }
  }
}

function toId(value: string): number {
  const id = Number(value);
  if (Number.isSafeInteger(id) && id >= 0) return id;
  throw new LogError(
    'CORRUPT_LOG',
    `The metadata entry ${NEXT_ID_KEY} is ${JSON.stringify(value)}, not a producer id.`,
  );
}
