/** A member of a group that tells of each record it is given, until it is told to leave. */
import { bytes, connect, LogError, topic } from 'tidelog';
import { parent, sharedMs } from '../support/child.js';

export interface FollowerTask {
  readonly broker: string;
  readonly topic: string;
  readonly group: string;
  readonly sessionTimeoutMs: number;
}

export type FollowerReport = { readonly kind: 'record'; readonly partition: number; readonly atMs: number };

export interface FollowerOrder {
  readonly kind: 'leave';
}

const { task, report, onOrder } = parent<FollowerTask, FollowerReport, FollowerOrder>();
const stop = new AbortController();
onOrder(() => stop.abort());
const { broker, group, sessionTimeoutMs } = task;
const client = await connect(broker);
const consumer = client.consumer(topic(task.topic, { value: bytes() }), {
  group,
  sessionTimeoutMs,
  signal: stop.signal,
});
try {
  for await (const { partition } of consumer) report({ kind: 'record', partition, atMs: sharedMs() });
} catch (error) {
  if (!(error instanceof LogError && error.reason === 'CANCELLED')) throw error;
}
await client.close();
process.disconnect();
