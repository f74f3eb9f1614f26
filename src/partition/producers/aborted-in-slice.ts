import {
  attributesOf,
  baseOffsetOf,
  isControl,
  isTransactional,
  producerIdOf,
  sizeInBytesOf,
} from '../../batch/layout.js';
import { partitionPoint } from '../../core/binary-search.js';
import type { AbortedTransaction } from './types.js';

/**
 * Those of the aborted transactions that have a batch in what was read, by the offsets of their first batches. However many
 * there are in its range, these are no more than its batches.
 * @param candidates in the order of their markers
 */
export function abortedInSlice(
  chunks: readonly Buffer[],
  candidates: readonly AbortedTransaction[],
): readonly AbortedTransaction[] {
  const ofProducer = new Map<number, AbortedTransaction[]>();
  for (const transaction of candidates) {
    const known = ofProducer.get(transaction.producerId);
    if (known === undefined) ofProducer.set(transaction.producerId, [transaction]);
    else known.push(transaction);
  }
  const found = new Set<AbortedTransaction>();
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += sizeInBytesOf(chunk, at)) {
      const transaction = transactionOf(chunk, at, ofProducer);
      if (transaction !== undefined) found.add(transaction);
    }
  }
  return [...found].sort((a, b) => a.firstOffset - b.firstOffset);
}

function transactionOf(
  chunk: Buffer,
  at: number,
  ofProducer: ReadonlyMap<number, readonly AbortedTransaction[]>,
): AbortedTransaction | undefined {
  const attributes = attributesOf(chunk, at);
  if (!isTransactional(attributes) || isControl(attributes)) return undefined;
  const candidates = ofProducer.get(producerIdOf(chunk, at));
  if (candidates === undefined) return undefined;
  const offset = baseOffsetOf(chunk, at);
  const first = candidates[partitionPoint(candidates.length, (i) => candidates[i]!.lastOffset < offset)];
  return first !== undefined && first.firstOffset <= offset ? first : undefined;
}
