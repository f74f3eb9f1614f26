/**
 * How many of `count` items, from the first on, satisfy a condition that holds for the first ones only: the index of the
 * first item for which it does not hold, `count` when there is none.
 */
export function partitionPoint(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}
