/** Fails when a new release of grpc-js takes away what src/listeners/grpc/transport.ts reaches for. */
import { once } from 'node:events';
import { type ClientHttp2Session, connect } from 'node:http2';
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { CONNECTION_WINDOW_BYTES, readOneAhead } from '../../../src/listeners/grpc/transport.js';
import { until } from '../../support/until.js';
import { run } from './support.js';

test('a client is granted wide windows for its streams and for the connection', async () => {
  const running = await run();
  const session: ClientHttp2Session = connect(`http://${running.broker.address}`);
  try {
    await once(session, 'remoteSettings');
    expect(session.remoteSettings.initialWindowSize).toBe(CONNECTION_WINDOW_BYTES);
    await until(
      () => (session.state.remoteWindowSize ?? 0) >= CONNECTION_WINDOW_BYTES,
      'the connection window was widened',
    );
  } finally {
    session.destroy();
    await running.stop();
  }
});

test('a paused stream reads one message ahead', () => {
  const stream = new PassThrough({ objectMode: true });
  expect(readOneAhead(stream)).toBe(true);
  expect(stream.readableHighWaterMark).toBe(1);
});
