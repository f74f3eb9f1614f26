/** What the commands of `tidelog topic` share: their options, and a topic as text and as JSON. */
import type { Command } from 'commander';
import type { PartitionDescription, TopicDescription } from '../../client/admin.js';
import { brokerOption } from '../arguments.js';
import { count, type Output } from '../output.js';
import { formatTime } from '../record-format.js';

export interface TopicOptions {
  readonly broker?: string;
  readonly json?: boolean;
}

export function common(command: Command): Command {
  return command.option('--json', 'Print JSON.').addOption(brokerOption());
}

/** A command on one topic. */
export function topicCommand(parent: Command, name: string, description: string): Command {
  return common(parent.command(name).argument('<name>', 'The topic.').description(description));
}

/** JSON has no `undefined`: what a partition does not have is null. Times are ISO 8601, in UTC. */
export function topicJson(topic: TopicDescription): object {
  return { ...topic, partitions: topic.partitions.map(partitionJson) };
}

function partitionJson(partition: PartitionDescription): object {
  const { oldestTimestampMs, newestTimestampMs, failureReason, ...others } = partition;
  return {
    ...others,
    oldestTimestamp: isoTime(oldestTimestampMs),
    newestTimestamp: isoTime(newestTimestampMs),
    failureReason: failureReason ?? null,
  };
}

function isoTime(timestampMs: number | undefined): string | null {
  return timestampMs === undefined ? null : formatTime(timestampMs);
}

const PARTITION_COLUMNS = [
  'partition',
  'log start',
  'high watermark',
  'log end',
  'segments',
  'bytes',
  'oldest',
  'newest',
  'state',
];

export function describeTopic(topic: TopicDescription, output: Output): void {
  output.line(`Topic ${topic.name}, id ${topic.topicId}, ${count(topic.partitionCount, 'partition')}`);
  output.line('');
  output.table(PARTITION_COLUMNS, topic.partitions.map(partitionRow));
  output.line('');
  output.table(
    ['configuration', 'value', 'source'],
    topic.configs.map(({ key, value, source }) => [key, value, source]),
  );
}

function partitionRow(partition: PartitionDescription): readonly (string | number)[] {
  const { logStartOffset, highWatermark, logEndOffset, segmentCount, sizeBytes } = partition;
  const times = [partition.oldestTimestampMs, partition.newestTimestampMs].map((time) => isoTime(time) ?? '-');
  const state = partition.failureReason ?? 'ok';
  return [partition.partition, logStartOffset, highWatermark, logEndOffset, segmentCount, sizeBytes, ...times, state];
}
