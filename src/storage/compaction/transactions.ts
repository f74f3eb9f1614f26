/** Which transactions of a range were aborted, found from the markers in the log itself. */
import { readControlRecord } from '../../batch/control.js';
import { attributesOf, baseOffsetOf, isControl, producerIdOf, recordCountOf } from '../../batch/layout.js';

const ABORT = 0;
const COMMIT = 1;

/** Whether a control batch ends a transaction, rather than being of another kind, or emptied. */
export function isTransactionMarker(batch: Buffer): boolean {
  if (!isControl(attributesOf(batch, 0)) || recordCountOf(batch, 0) === 0) return false;
  const { type } = readControlRecord(batch);
  return type === ABORT || type === COMMIT;
}

/** The markers of one producer, ascending. */
interface ProducerMarkers {
  readonly offsets: number[];
  readonly aborts: boolean[];
}

/** The markers of a range. Grows with their number, which is that of the transactions. */
export class TransactionMarkers {
  readonly #byProducer = new Map<number, ProducerMarkers>();

  /** Takes up a batch, in offset order; looks at markers only. */
  add(batch: Buffer): void {
    if (!isTransactionMarker(batch)) return;
    const producerId = producerIdOf(batch, 0);
    let markers = this.#byProducer.get(producerId);
    if (!markers) {
      markers = { offsets: [], aborts: [] };
      this.#byProducer.set(producerId, markers);
    }
    markers.offsets.push(baseOffsetOf(batch, 0));
    markers.aborts.push(readControlRecord(batch).type === ABORT);
  }

  /** Whether what the producer wrote at `offset`, in a transaction, was aborted: its next marker says so. */
  isAborted(producerId: number, offset: number): boolean {
    const markers = this.#byProducer.get(producerId);
    if (!markers) return false;
    let low = 0;
    let high = markers.offsets.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (markers.offsets[middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    return markers.aborts[low] === true;
  }
}
