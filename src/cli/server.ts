/** The composition root of `tidelog serve`: configuration, logger, broker, signals. */
import { resolve } from 'node:path';
import { destination, type Logger as PinoLogger, pino } from 'pino';
import { type RunningBroker, startBroker } from '../broker.js';
import type { LogLevel } from '../config/broker-config.js';
import type { Environment } from '../config/environment.js';
import { type ConfigFile, type LoadedConfig, loadBrokerConfig } from '../config/load.js';
import { systemClock } from '../core/clock.js';
import { formatAddress } from '../core/config-key.js';
import { errorMessage, LogError, toLogError } from '../core/errors.js';
import { nodeFileSystem } from '../storage/local/fs.js';
import { readSmallFile } from '../storage/local/small-files.js';
import { VERSION } from '../version.js';
import { asUsageError, EXIT_FAILURE, EXIT_SIGINT, EXIT_SIGTERM } from './failure.js';
import { letHeapGrow } from './heap.js';
import type { Output } from './output.js';

export interface ServeCommand {
  /** Configuration values by key. */
  readonly flags: Readonly<Record<string, string>>;
  readonly environment: Environment;
  readonly configPath: string | undefined;
  readonly output: Output;
}

const STDERR_FD = 2;
const MAX_CONFIG_FILE_BYTES = 1024 * 1024;
/** How long calls under way may take once the broker stops. */
const FINISH_CALLS_MS = 6_000;
/** How long stopping may take in all. Below the 10 s after which supervisors kill. */
const STOP_TIMEOUT_MS = 9_500;

/**
 * Runs a broker until a signal stops it. Resolves when it has stopped cleanly.
 * @throws UsageError for a wrong configuration; LogError DATA_DIR_LOCKED, DATA_DIR_UNUSABLE, UNSUPPORTED_FORMAT,
 *   ADDRESS_UNAVAILABLE
 */
export async function serve(command: ServeCommand): Promise<void> {
  const loaded = await load(command);
  const { config } = loaded;
  const logger = createLogger(config['log.level']);
  letHeapGrow();
  const signals = new StopSignals(logger);
  const startedMs = systemClock.monotonic();
  const broker = await start(loaded, logger).catch((error: unknown) => {
    // What the defaults for topics say can only be held against the topics once those are read.
    throw asUsageError(error);
  });
  const dataDir = resolve(config['data.dir']);
  const startMs = Math.round(systemClock.monotonic() - startedMs);
  const addresses = { grpc: broker.address, http: broker.httpAddress };
  logger.info({ version: VERSION, ...addresses, dataDir, startMs }, 'broker started');
  command.output.line(
    `tidelog ${VERSION} is serving gRPC on ${broker.address} and HTTP on ${broker.httpAddress}, data in ${dataDir}`,
  );
  await command.output.flush();
  const signal = await signals.first;
  await stop(broker, logger, signal);
}

async function load({ flags, environment, configPath }: ServeCommand): Promise<LoadedConfig> {
  try {
    const file = configPath === undefined ? undefined : await readConfigFile(configPath);
    return loadBrokerConfig({ flags, environment, ...(file === undefined ? {} : { file }) });
  } catch (error) {
    throw asUsageError(error);
  }
}

async function readConfigFile(path: string): Promise<ConfigFile> {
  let contents: Buffer | undefined;
  try {
    contents = await readSmallFile(nodeFileSystem, resolve(path), MAX_CONFIG_FILE_BYTES);
  } catch (error) {
    throw new LogError('INVALID_CONFIG', `The configuration file ${path} cannot be read: ${errorMessage(error)}.`, {
      cause: error,
    });
  }
  if (contents === undefined) throw new LogError('INVALID_CONFIG', `There is no configuration file ${path}.`);
  return { path, contents: contents.toString('utf8') };
}

/** JSON lines on standard error. Synchronous: the last line before a crash is the one that matters. */
function createLogger(level: LogLevel): PinoLogger {
  const stream = destination({ fd: STDERR_FD, sync: true });
  // A reader of our log lines that went away must not take the broker with it.
  stream.on('error', () => undefined);
  return pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date(systemClock.now()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: errorFields },
    },
    stream,
  );
}

/** What a log line tells of an error. The stack is for defects: elsewhere reason and message say where and what. */
function errorFields(error: unknown): object {
  const { reason, message, stack, metadata, cause } = toLogError(error);
  return {
    reason,
    message,
    metadata,
    ...(cause === undefined ? {} : { cause: errorMessage(cause) }),
    ...(reason === 'INTERNAL' ? { stack: cause instanceof Error ? cause.stack : stack } : {}),
  };
}

async function start({ config, topicDefaults }: LoadedConfig, logger: PinoLogger): Promise<RunningBroker> {
  return await startBroker({
    storage: { dataDir: resolve(config['data.dir']) },
    listen: formatAddress(config.listen),
    http: formatAddress(config.http),
    defaultPartitions: config['default.partitions'],
    topicDefaults,
    limits: {
      requestMaxBytes: config['request.max.bytes'],
      streamInFlightBytes: config['inflight.stream.bytes'],
      connectionInFlightBytes: config['inflight.connection.bytes'],
      totalInFlightBytes: config['inflight.total.bytes'],
      maxConnections: config['connections.max'],
      maxStreams: config['streams.max'],
      maxPartitionsPerTopic: config['partitions.per.topic.max'],
      maxPartitions: config['partitions.max'],
      maxOpenFiles: config['open.files.max'],
      tailCacheBytes: config['tail.cache.bytes'],
      diskReserveBytes: config['log.disk.reserve.bytes'],
    },
    lifecycle: {
      retentionCheckIntervalMs: config['log.retention.check.interval.ms'],
      cleanerBackoffMs: config['log.cleaner.backoff.ms'],
      cleanerDedupeBufferBytes: config['log.cleaner.dedupe.buffer.size'],
    },
    groups: {
      offsetsTopicPartitions: config['offsets.topic.num.partitions'],
      sessionTimeoutMs: config['group.session.timeout.ms'],
      minSessionTimeoutMs: config['group.min.session.timeout.ms'],
      maxSessionTimeoutMs: config['group.max.session.timeout.ms'],
      rebalanceTimeoutMs: config['group.rebalance.timeout.ms'],
      maxMembers: config['group.max.size'],
      maxGroups: config['groups.max'],
      maxMembersInAll: config['members.max'],
      maxOffsets: config['offsets.max'],
      offsetsRetentionMs: config['offsets.retention.ms'],
      retentionCheckIntervalMs: config['offsets.retention.check.interval.ms'],
      metadataMaxBytes: config['offset.metadata.max.bytes'],
    },
    producers: {
      expirationMs: config['producer.id.expiration.ms'],
      maxProducers: config['producers.max'],
      maxMessageIds: config['message.ids.max'],
    },
    transactions: {
      maxTimeoutMs: config['transaction.max.timeout.ms'],
      idExpirationMs: config['transactional.id.expiration.ms'],
      maxIds: config['transactional.ids.max'],
      stateTopicPartitions: config['transaction.state.topic.num.partitions'],
    },
    logger,
  });
}

type StopSignal = 'SIGINT' | 'SIGTERM';

const EXIT_CODES: Readonly<Record<StopSignal, number>> = { SIGINT: EXIT_SIGINT, SIGTERM: EXIT_SIGTERM };

/** Listens from the moment it is made: the first signal stops the broker, also one that is still starting. */
class StopSignals {
  readonly first: Promise<StopSignal>;

  constructor(logger: PinoLogger) {
    this.first = new Promise((resolveFirst) => {
      let stopping = false;
      const onSignal = (signal: StopSignal): void => {
        if (stopping) {
          logger.warn({ signal }, 'second signal: ending at once; the next start checks the log');
          process.exit(EXIT_CODES[signal]);
        }
        stopping = true;
        resolveFirst(signal);
      };
      process.on('SIGINT', onSignal);
      process.on('SIGTERM', onSignal);
    });
  }
}

async function stop(broker: RunningBroker, logger: PinoLogger, signal: StopSignal): Promise<void> {
  logger.info({ signal }, 'stopping: finishing what was accepted');
  const timer = systemClock.setTimer(STOP_TIMEOUT_MS, () => {
    logger.fatal({ timeoutMs: STOP_TIMEOUT_MS }, 'stopping took too long: ending now; the next start checks the log');
    process.exit(EXIT_FAILURE);
  });
  const startedMs = systemClock.monotonic();
  await broker.close(FINISH_CALLS_MS);
  timer.cancel();
  logger.info({ stopMs: Math.round(systemClock.monotonic() - startedMs) }, 'stopped cleanly');
}
