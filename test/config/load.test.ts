/** Configuration of the broker: where values come from, and what is refused. */
import { describe, expect, test } from 'vitest';
import { BROKER_KEYS, type BrokerConfig, flagOf, variableOf } from '../../src/config/broker-config.js';
import { type ConfigSources, loadBrokerConfig } from '../../src/config/load.js';
import { LogError } from '../../src/core/errors.js';

/** The configuration in force. */
function load(sources: ConfigSources): BrokerConfig {
  return loadBrokerConfig(sources).config;
}

const nothing: ConfigSources = { flags: {}, environment: {} };

function file(contents: unknown): { readonly path: string; readonly contents: string } {
  return { path: 'tidelog.json', contents: typeof contents === 'string' ? contents : JSON.stringify(contents) };
}

function refusal(sources: Partial<ConfigSources>): LogError {
  try {
    loadBrokerConfig({ ...nothing, ...sources });
  } catch (error) {
    if (error instanceof LogError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('precedence', () => {
  test('without any setting the defaults hold', () => {
    const config = load(nothing);
    expect(config['data.dir']).toBe('./data');
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 7171 });
    expect(config.http).toEqual({ host: '127.0.0.1', port: 7172 });
    expect(config['log.level']).toBe('info');
    expect(config['request.max.bytes']).toBe(8 * 1024 * 1024);
  });

  test('the file overrides the default, the environment the file, a flag the environment', () => {
    const fromFile = { file: file({ 'default.partitions': 2 }) };
    const fromEnvironment = { environment: { TIDELOG_DEFAULT_PARTITIONS: '3' } };
    const fromFlag = { flags: { 'default.partitions': '4' } };
    const partitions = (sources: Partial<ConfigSources>): number =>
      load({ ...nothing, ...sources })['default.partitions'];
    expect(partitions({})).toBe(1);
    expect(partitions(fromFile)).toBe(2);
    expect(partitions({ ...fromFile, ...fromEnvironment })).toBe(3);
    expect(partitions({ ...fromFile, ...fromEnvironment, ...fromFlag })).toBe(4);
  });

  test('an overridden value is not judged, an unknown key in the same place is', () => {
    const overridden = { file: file({ listen: 'nonsense' }), flags: { listen: '[::1]:1' } };
    expect(load({ ...nothing, ...overridden }).listen).toEqual({ host: '::1', port: 1 });
    expect(refusal({ ...overridden, file: file({ lisen: 'x' }) }).message).toContain('"lisen"');
  });
});

describe('unknown keys', () => {
  test('in the file are refused with the file and the keys there are', () => {
    const { reason, message } = refusal({ file: file({ 'data.directory': '/x' }) });
    expect(reason).toBe('INVALID_CONFIG');
    for (const part of ['"data.directory"', 'tidelog.json', ...Object.keys(BROKER_KEYS)])
      expect(message).toContain(part);
  });

  test('in the environment are refused with the variables there are', () => {
    const { message } = refusal({ environment: { TIDELOG_DATADIR: '/x' } });
    expect(message).toContain('TIDELOG_DATADIR');
    for (const name of Object.keys(BROKER_KEYS)) expect(message).toContain(variableOf(name));
  });

  test('of the object prototype are unknown too', () => {
    expect(refusal({ file: file('{"constructor": "x"}') }).message).toContain('"constructor"');
    expect(refusal({ file: file('{"__proto__": "x"}') }).message).toContain('"__proto__"');
    expect(refusal({ flags: { toString: 'x' } }).message).toContain('"toString"');
  });

  test('do not include the address that clients use, nor variables of others', () => {
    const environment = { TIDELOG_BROKER: 'somewhere:1', HOME: '/root', tidelog_x: '1', TIDELOG_LISTEN: undefined };
    expect(load({ ...nothing, environment }).listen.port).toBe(7171);
  });
});

describe('bad values', () => {
  test.each([
    [{ flags: { listen: 'nowhere' } }, ['listen=nowhere', 'HOST:PORT', 'the flag --listen']],
    [{ flags: { listen: 'h:65536' } }, ['listen=h:65536', 'HOST:PORT']],
    [
      { environment: { TIDELOG_REQUEST_MAX_BYTES: '8MB' } },
      ['request.max.bytes=8MB', 'from 65536', 'TIDELOG_REQUEST_MAX_BYTES'],
    ],
    [{ environment: { TIDELOG_OPEN_FILES_MAX: '1' } }, ['open.files.max=1', 'from 16']],
    [
      { file: file({ 'log.level': 'loud' }) },
      ['log.level=loud', 'trace, debug, info, warn, error, fatal', 'tidelog.json'],
    ],
    [{ file: file({ 'default.partitions': { n: 1 } }) }, ['default.partitions={"n":1}', 'whole number']],
    [{ file: file({ 'data.dir': null }) }, ['data.dir=null', 'directory']],
    [{ flags: { 'data.dir': '' } }, ['data.dir= ', 'directory']],
    [{ file: file('{"data.dir": ') }, ['tidelog.json', 'not JSON']],
    [{ file: file('[]') }, ['tidelog.json', 'not a JSON object']],
  ])('%j is refused, naming key, value, source and what is valid', (sources, parts) => {
    const { reason, message } = refusal(sources);
    expect(reason).toBe('INVALID_CONFIG');
    for (const part of parts) expect(message).toContain(part);
  });
});

test('the flag and the variable of a key follow from its name', () => {
  expect(flagOf('partitions.per.topic.max')).toBe('--partitions-per-topic-max');
  expect(variableOf('partitions.per.topic.max')).toBe('TIDELOG_PARTITIONS_PER_TOPIC_MAX');
});

test('every default is valid', () => {
  for (const [name, key] of Object.entries(BROKER_KEYS)) {
    const config = load({ ...nothing, flags: { [name]: key.defaultText } });
    expect(config).toEqual(load(nothing));
  }
});

describe('defaults of topics', () => {
  test('are keys of the broker under log., with the default of the key of the topic', () => {
    const config = load(nothing);
    expect(config['log.retention.ms']).toBe(7 * 86_400_000);
    expect([...config['log.cleanup.policy']]).toEqual(['delete']);
    expect(config['log.min.cleanable.dirty.ratio']).toBe(0.5);
  });

  test('count as set only where they were set, wherever that was', () => {
    const sources = {
      file: file({ 'log.retention.bytes': 5000 }),
      environment: { TIDELOG_LOG_CLEANUP_POLICY: ' compact,delete ' },
      flags: { 'log.retention.ms': '604800000' },
    };
    expect(loadBrokerConfig(nothing).topicDefaults).toEqual({});
    expect(loadBrokerConfig(sources).topicDefaults).toEqual({
      'retention.ms': '604800000',
      'retention.bytes': '5000',
      'cleanup.policy': 'compact,delete',
    });
    expect([...load(sources)['log.cleanup.policy']]).toEqual(['compact', 'delete']);
  });

  test('are judged like those of a topic, with their source', () => {
    const { message } = refusal({ environment: { TIDELOG_LOG_RETENTION_MS: '-2' } });
    for (const part of ['log.retention.ms=-2', 'from -1', 'TIDELOG_LOG_RETENTION_MS']) expect(message).toContain(part);
    expect(refusal({ flags: { 'log.cleanup.policy': '' } }).message).toContain('one or several of delete, compact');
  });

  test('must not contradict each other', () => {
    const flags = { 'log.min.compaction.lag.ms': '20', 'log.max.compaction.lag.ms': '10' };
    expect(refusal({ flags }).message).toContain('min.compaction.lag.ms=20 is larger than max.compaction.lag.ms=10');
  });
});

test('the keys of retention, compaction and the disk reserve have the defaults that operators know', () => {
  expect(load(nothing)).toMatchObject({
    'log.retention.check.interval.ms': 300_000,
    'log.cleaner.backoff.ms': 15_000,
    'log.cleaner.dedupe.buffer.size': 134_217_728,
    'log.disk.reserve.bytes': 67_108_864,
  });
  expect(load({ ...nothing, flags: { 'log.disk.reserve.bytes': '0' } })['log.disk.reserve.bytes']).toBe(0);
  for (const flags of [{ 'log.retention.check.interval.ms': '0' }, { 'log.cleaner.dedupe.buffer.size': '1048575' }]) {
    expect(refusal({ flags }).reason).toBe('INVALID_CONFIG');
  }
});
