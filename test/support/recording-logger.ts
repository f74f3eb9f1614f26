/** A logger that keeps what it is told. */
import type { Logger } from '../../src/core/logger.js';

/** One line that was logged. */
export interface LogLine {
  readonly level: keyof Logger;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

export interface RecordingLogger extends Logger {
  readonly lines: LogLine[];
  /** Of one level. */
  messages(level: LogLine['level']): readonly string[];
}

export function recordingLogger(): RecordingLogger {
  const lines: LogLine[] = [];
  const at =
    (level: LogLine['level']) =>
    (fields: object, message: string): void => {
      lines.push({ level, fields: { ...fields }, message });
    };
  const messages = (level: LogLine['level']): readonly string[] =>
    lines.filter((line) => line.level === level).map(({ message }) => message);
  return { lines, messages, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
