/**
 * The one error type of Tidelog and the one table that says what each reason means to a caller.
 * gRPC codes follow google.rpc.Code, error numbers follow Kafka's protocol.
 */

/** The gRPC status code names that reasons map to. */
export type GrpcCodeName =
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'DATA_LOSS'
  | 'UNAUTHENTICATED'
  | 'CANCELLED';

/**
 * What is known of the effect of a failed call:
 * `none` - definitely nothing happened; `unknown` - it may have happened, and may still.
 */
export type Outcome = 'none' | 'unknown';

interface ReasonFacts {
  readonly grpc: GrpcCodeName;
  /** Kafka's error number, for the day a Kafka listener answers with it. */
  readonly kafka: number;
  /** Whether the same call, sent again unchanged, may succeed. */
  readonly retryable: boolean;
  readonly outcome: Outcome;
}

function reason(grpc: GrpcCodeName, kafka: number, retryable = false, outcome: Outcome = 'none'): ReasonFacts {
  return { grpc, kafka, retryable, outcome };
}

/** The name of everything that can go wrong, stable across versions: program against this, not the message. */
export type Reason =
  | 'INVALID_REQUEST'
  | 'INVALID_TOPIC'
  | 'INVALID_CONFIG'
  | 'INVALID_PARTITIONS'
  | 'MESSAGE_TOO_LARGE'
  | 'CORRUPT_MESSAGE'
  | 'INVALID_RECORD'
  | 'INVALID_TIMESTAMP'
  | 'UNSUPPORTED_COMPRESSION_TYPE'
  | 'UNKNOWN_TOPIC_OR_PARTITION'
  | 'UNKNOWN_TOPIC_ID'
  | 'TOPIC_ALREADY_EXISTS'
  | 'OFFSET_OUT_OF_RANGE'
  | 'LOG_TRUNCATED'
  | 'INVALID_GROUP_ID'
  | 'INVALID_SESSION_TIMEOUT'
  | 'UNSUPPORTED_ASSIGNOR'
  | 'INVALID_REGULAR_EXPRESSION'
  | 'OFFSET_METADATA_TOO_LARGE'
  | 'GROUP_ID_NOT_FOUND'
  | 'NON_EMPTY_GROUP'
  | 'UNKNOWN_MEMBER_ID'
  | 'FENCED_MEMBER_EPOCH'
  | 'UNRELEASED_INSTANCE_ID'
  | 'GROUP_MAX_SIZE_REACHED'
  | 'COORDINATOR_LOAD_IN_PROGRESS'
  | 'UNSTABLE_OFFSET_COMMIT'
  | 'OUT_OF_ORDER_SEQUENCE_NUMBER'
  | 'PRODUCER_FENCED'
  | 'INVALID_PRODUCER_ID_MAPPING'
  | 'INVALID_TXN_STATE'
  | 'INVALID_TRANSACTION_TIMEOUT'
  | 'CONCURRENT_TRANSACTIONS'
  | 'TRANSACTION_ABORTABLE'
  | 'TRANSACTIONAL_ID_NOT_FOUND'
  | 'WRONG_OFFSET'
  | 'FENCED_EPOCH'
  | 'PRECEDING_APPEND_FAILED'
  | 'CONCURRENT_UPDATE'
  | 'STORAGE_FULL'
  | 'RESOURCE_LIMIT'
  | 'NOT_LEADER'
  | 'BROKER_DRAINING'
  | 'BROKER_UNAVAILABLE'
  | 'CONNECTION_LOST'
  | 'REQUEST_TIMED_OUT'
  | 'CANCELLED'
  | 'CLOSED'
  | 'CORRUPT_LOG'
  | 'STORAGE_ERROR'
  | 'DATA_DIR_LOCKED'
  | 'DATA_DIR_UNUSABLE'
  | 'UNSUPPORTED_FORMAT'
  | 'ADDRESS_UNAVAILABLE'
  | 'INTERNAL';

const REASONS: Readonly<Record<Reason, ReasonFacts>> = {
  INVALID_REQUEST: reason('INVALID_ARGUMENT', 42),
  INVALID_TOPIC: reason('INVALID_ARGUMENT', 17),
  INVALID_CONFIG: reason('INVALID_ARGUMENT', 40),
  INVALID_PARTITIONS: reason('INVALID_ARGUMENT', 37),
  MESSAGE_TOO_LARGE: reason('INVALID_ARGUMENT', 10),
  /** The batch's bytes do not hold together: CRC, length, magic. */
  CORRUPT_MESSAGE: reason('INVALID_ARGUMENT', 2),
  /** The batch is intact but breaks a rule: record count, control flag, producer fields. */
  INVALID_RECORD: reason('INVALID_ARGUMENT', 87),
  INVALID_TIMESTAMP: reason('INVALID_ARGUMENT', 32),
  UNSUPPORTED_COMPRESSION_TYPE: reason('INVALID_ARGUMENT', 76),

  UNKNOWN_TOPIC_OR_PARTITION: reason('NOT_FOUND', 3),
  /** The caller's topic id belongs to an earlier topic of that name, or to one that was deleted. */
  UNKNOWN_TOPIC_ID: reason('NOT_FOUND', 100),
  TOPIC_ALREADY_EXISTS: reason('ALREADY_EXISTS', 36),
  OFFSET_OUT_OF_RANGE: reason('OUT_OF_RANGE', 1),
  /** A position beyond the end of the log: what was read there is gone, or the position is of another log. */
  LOG_TRUNCATED: reason('OUT_OF_RANGE', 1),

  INVALID_GROUP_ID: reason('INVALID_ARGUMENT', 24),
  INVALID_SESSION_TIMEOUT: reason('INVALID_ARGUMENT', 26),
  UNSUPPORTED_ASSIGNOR: reason('INVALID_ARGUMENT', 112),
  INVALID_REGULAR_EXPRESSION: reason('INVALID_ARGUMENT', 128),
  OFFSET_METADATA_TOO_LARGE: reason('INVALID_ARGUMENT', 12),
  GROUP_ID_NOT_FOUND: reason('NOT_FOUND', 69),
  /** The group has members, and this is for groups without. */
  NON_EMPTY_GROUP: reason('FAILED_PRECONDITION', 68),
  /** The group has no such member, or no longer: join anew. */
  UNKNOWN_MEMBER_ID: reason('ABORTED', 25),
  /** The member's epoch does not, or no longer, give it what it acts on. */
  FENCED_MEMBER_EPOCH: reason('ABORTED', 110),
  /** Another member goes by this instance id, and its session is not over. */
  UNRELEASED_INSTANCE_ID: reason('ABORTED', 111, true),
  GROUP_MAX_SIZE_REACHED: reason('RESOURCE_EXHAUSTED', 81),
  /** The group's state is being read from its log. */
  COORDINATOR_LOAD_IN_PROGRESS: reason('UNAVAILABLE', 14, true),

  /** The committed offset depends on a transaction that is not decided. */
  UNSTABLE_OFFSET_COMMIT: reason('UNAVAILABLE', 88, true),

  /** A batch before this one is missing, or this one is older than what the partition remembers. */
  OUT_OF_ORDER_SEQUENCE_NUMBER: reason('ABORTED', 45),
  /** A newer producer goes by the same id: this one is not to send anything any more. */
  PRODUCER_FENCED: reason('ABORTED', 90),
  /** The transactional id is not known, or belongs to another producer id: initialise the producer. */
  INVALID_PRODUCER_ID_MAPPING: reason('FAILED_PRECONDITION', 49),
  /** What was asked does not go with the state of the transaction. */
  INVALID_TXN_STATE: reason('FAILED_PRECONDITION', 48),
  INVALID_TRANSACTION_TIMEOUT: reason('INVALID_ARGUMENT', 50),
  /** The transaction before is being completed. */
  CONCURRENT_TRANSACTIONS: reason('ABORTED', 51, true),
  /** The transaction cannot commit any more: abort it and begin another. */
  TRANSACTION_ABORTABLE: reason('ABORTED', 120),
  TRANSACTIONAL_ID_NOT_FOUND: reason('NOT_FOUND', 105),

  /** The log did not end where the caller expected (compare-and-append). */
  WRONG_OFFSET: reason('ABORTED', 42),
  /** A newer epoch has opened this partition. */
  FENCED_EPOCH: reason('ABORTED', 74),
  /** An earlier append of the same stream to the same partition failed; this one was not tried, to keep order. */
  PRECEDING_APPEND_FAILED: reason('ABORTED', 45, true),
  /** The metadata entry changed under a compare-and-set. */
  CONCURRENT_UPDATE: reason('ABORTED', 42, true),

  STORAGE_FULL: reason('RESOURCE_EXHAUSTED', 56, true),
  /** A limit of this broker on what may be open or in flight at once. */
  RESOURCE_LIMIT: reason('RESOURCE_EXHAUSTED', 89, true),

  NOT_LEADER: reason('UNAVAILABLE', 6, true),
  BROKER_DRAINING: reason('UNAVAILABLE', 8, true),
  /** The client could not reach a broker, or lost it, before the request left. */
  BROKER_UNAVAILABLE: reason('UNAVAILABLE', 8, true),
  /** The connection broke after the request left: it may have been carried out. */
  CONNECTION_LOST: reason('UNAVAILABLE', 13, true, 'unknown'),
  REQUEST_TIMED_OUT: reason('DEADLINE_EXCEEDED', 7, true, 'unknown'),
  CANCELLED: reason('CANCELLED', -1, false, 'unknown'),
  /** The object (client, producer, broker) was closed by its owner. */
  CLOSED: reason('FAILED_PRECONDITION', -1),

  CORRUPT_LOG: reason('DATA_LOSS', 56),
  /** The disk refused a write or a sync; the partition takes no more appends until it was recovered from disk. */
  STORAGE_ERROR: reason('INTERNAL', 56, false, 'unknown'),
  /** Another process uses the data directory. */
  DATA_DIR_LOCKED: reason('FAILED_PRECONDITION', 57),
  /** The data directory cannot be used: not readable, not writable, not a directory. */
  DATA_DIR_UNUSABLE: reason('FAILED_PRECONDITION', 57),
  /** The data directory was written by a newer Tidelog. */
  UNSUPPORTED_FORMAT: reason('FAILED_PRECONDITION', 35),
  /** A listening address is taken or cannot be bound. */
  ADDRESS_UNAVAILABLE: reason('FAILED_PRECONDITION', -1),
  /** A broken invariant: a defect of Tidelog. */
  INTERNAL: reason('INTERNAL', -1, false, 'unknown'),
};

/** Numbers and names that a caller needs to act on the error; values are strings, as in google.rpc.ErrorInfo. */
export type ErrorMetadata = Readonly<Record<string, string>>;

export interface LogErrorOptions {
  readonly metadata?: Readonly<Record<string, string | number>>;
  readonly cause?: unknown;
  /** Overrides the table where a particular failure is known better than its reason. */
  readonly outcome?: Outcome;
  /** How long to wait before trying again, in ms. Sent as google.rpc.RetryInfo. */
  readonly retryAfterMs?: number;
}

/** The error of every Tidelog API, on both sides of the wire. */
export class LogError extends Error {
  override readonly name = 'LogError';
  readonly reason: Reason;
  readonly metadata: ErrorMetadata;
  /** Whether the operation definitely had no effect, or may have had one. */
  readonly outcome: Outcome;
  readonly retryAfterMs: number | undefined;

  constructor(reasonName: Reason, message: string, options: LogErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reasonName;
    const metadata: Record<string, string> = {};
    for (const [key, value] of Object.entries(options.metadata ?? {})) metadata[key] = String(value);
    this.metadata = metadata;
    this.outcome = options.outcome ?? REASONS[reasonName].outcome;
    this.retryAfterMs = options.retryAfterMs;
  }

  /** Whether the same call, sent again unchanged, may succeed. */
  get retryable(): boolean {
    return REASONS[this.reason].retryable;
  }

  get grpcCode(): GrpcCodeName {
    return REASONS[this.reason].grpc;
  }

  /** Kafka's protocol error number, -1 where Kafka has none. */
  get kafkaCode(): number {
    return REASONS[this.reason].kafka;
  }
}

/** Every reason there is, for documentation and for tests that hold the table complete. */
export const ALL_REASONS: readonly Reason[] = Object.keys(REASONS) as Reason[];

export function isReason(value: string): value is Reason {
  return Object.hasOwn(REASONS, value);
}

/** Any thrown value as a LogError; what is not one already is a defect and becomes INTERNAL. */
export function toLogError(error: unknown): LogError {
  if (error instanceof LogError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new LogError('INTERNAL', `Unexpected failure: ${message}`, { cause: error });
}

/** The message of anything thrown, for a log line. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
