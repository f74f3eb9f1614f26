/** The writer of one partition of the offsets topic. */
import { StateWriter, type StateWriterOptions } from '../state-topic/state-writer.js';
import { notWritten } from './group-errors.js';

export type ShardWriterOptions = Omit<StateWriterOptions, 'notWritten'>;

/** After changes were lost with an unknown outcome it is of no further use: the partition is to be read again. */
export class ShardWriter extends StateWriter {
  constructor(options: ShardWriterOptions) {
    super({ ...options, notWritten });
  }
}
