/** Sequence numbers: they count the records that a producer sends to a partition, from 0 to 2^31-1, and then from 0 again. */

export const MAX_SEQUENCE = 0x7fff_ffff;

/** The sequence that is `count` (0 to 2^31-1) records behind `sequence`. */
export function addToSequence(sequence: number, count: number): number {
  return sequence > MAX_SEQUENCE - count ? count - (MAX_SEQUENCE - sequence) - 1 : sequence + count;
}

/** The sequence of the record behind `sequence`; 0 behind -1, which stands for none. */
export function nextSequence(sequence: number): number {
  return sequence === MAX_SEQUENCE ? 0 : sequence + 1;
}
