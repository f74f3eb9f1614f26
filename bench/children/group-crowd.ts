/** Many consumers in one process, of one group or each of its own, over several connections. */
import { bytes, type Client, connect, topic } from 'tidelog';
import { parent, sharedMs } from '../support/child.js';

export interface CrowdTask {
  readonly broker: string;
  readonly topic: string;
  /** Name of the group; with `groupEach` the prefix of their names. */
  readonly group: string;
  readonly groupEach: boolean;
  readonly consumers: number;
  readonly connections: number;
  /** Partitions that each consumer has in the end. */
  readonly partitionsEach: number;
}

export type CrowdReport =
  | { readonly kind: 'ready' }
  /** All consumers have what they are to have; again and again, when that was not the end. */
  | { readonly kind: 'settled'; readonly atMs: number }
  /** Some have something else again. */
  | { readonly kind: 'unsettled' };

export interface CrowdOrder {
  readonly kind: 'join';
}

const { task, report, onOrder } = parent<CrowdTask, CrowdReport, CrowdOrder>();
const from = topic(task.topic, { value: bytes() });
const clients = await Promise.all(Array.from({ length: task.connections }, () => connect(task.broker)));
let settled = 0;

async function join(client: Client, group: string): Promise<void> {
  const consumer = client.consumer(from, { group });
  let held = 0;
  const change = (by: number): void => {
    const before = held;
    held += by;
    if (held === task.partitionsEach) settled++;
    else if (before === task.partitionsEach) settled--;
    if (settled === task.consumers) report({ kind: 'settled', atMs: sharedMs() });
    else if (settled === task.consumers - 1 && before === task.partitionsEach) report({ kind: 'unsettled' });
  };
  consumer.on('assigned', (partitions) => change(partitions.length));
  consumer.on('revoked', (partitions) => change(-partitions.length));
  consumer.on('lost', (partitions) => change(-partitions.length));
  for await (const _record of consumer) throw new Error('there is nothing to read');
}

onOrder(() => {
  for (let i = 0; i < task.consumers; i++) {
    const client = clients[i % clients.length];
    const group = task.groupEach ? `${task.group}-${process.pid}-${i}` : task.group;
    if (client !== undefined) void join(client, group);
  }
});
report({ kind: 'ready' });
