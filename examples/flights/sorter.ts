/**
 * A worker that sorts flights: what it reads, what it writes and how far it is become one transaction for each batch.
 *
 *     sorter.ts BROKER TRANSACTIONAL_ID
 *
 * Ends on SIGTERM.
 */
import { connect, LogError } from 'tidelog';
import { departures, isLate, late, punctual, SORTERS } from './sorting-terms.js';

const [, , broker = '', transactionalId = ''] = process.argv;
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());

await using client = await connect(broker, { clientId: transactionalId });
const consumer = client.consumer(departures, { group: SORTERS, signal: stop.signal, sessionTimeoutMs: 2_000 });
await using tx = client.transactionalProducer(transactionalId, { timeoutMs: 10_000 });
try {
  for await (const batch of consumer.batches()) {
    const records = await batch.records();
    await tx.transaction(async (t) => {
      await Promise.all(
        records.map(({ key, value, timestampMs }) =>
          t.send(isLate(value) ? late : punctual, { key, value, timestampMs }),
        ),
      );
      t.commitOffsets(consumer, batch);
    });
  }
} catch (error) {
  if (!(error instanceof LogError && error.reason === 'CANCELLED')) throw error;
}
