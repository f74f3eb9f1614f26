/** Bytes on both ports of a real broker process that are no gRPC and no HTTP, or hardly. */
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { BrokerProcess, freePort } from '../support/broker-process.js';
import { health } from '../support/health.js';
import { http2Frame, PREFACE, SETTINGS } from '../support/http2-frames.js';
import { mutate } from '../support/mutate.js';
import { inForm, Programme } from '../support/programme.js';
import { framed, RawConnection } from '../support/raw-http2.js';

const MIB = 1024 * 1024;
const CONNECTIONS = inForm({ short: 1_000, long: 50_000 });
const AT_ONCE = 20;
/** A broker that waits for more is left alone after this. */
const PATIENCE_MS = 20;
const STALL_MS = 200;

const PING = http2Frame(6, 0, 0, Buffer.alloc(8));
const WINDOW_UPDATE = http2Frame(8, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]));
/** `:method: POST`, `:scheme: http`, `:path: /`, by the static table of HPACK. */
const HEADERS = http2Frame(1, 4, 1, Buffer.from([0x83, 0x86, 0x84]));
const DATA = http2Frame(0, 1, 1, framed(Buffer.from('x')));
const RESET = http2Frame(3, 0, 1, Buffer.from([0, 0, 0, 8]));

const SEEDS: readonly Buffer[] = [
  Buffer.concat([PREFACE, SETTINGS, HEADERS, DATA]),
  Buffer.concat([PREFACE, SETTINGS, PING, WINDOW_UPDATE, HEADERS, RESET]),
  Buffer.concat([PREFACE, SETTINGS, HEADERS, HEADERS, DATA, DATA]),
  Buffer.from('GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
  Buffer.from('POST /healthz?a=%zz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'),
  Buffer.from(`GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`),
  Buffer.from('GET * HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n'),
];

/** Sends the bytes and reads until the broker hangs up, or there was time enough. Returns what it answered. */
function send(port: number, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const parts: Buffer[] = [];
    const timer = setTimeout(() => socket.destroy(), PATIENCE_MS);
    // A connection that is hung up on is a good answer to garbage.
    socket.on('error', () => undefined);
    socket.on('data', (part: Buffer) => parts.push(part));
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(Buffer.concat(parts));
    });
    socket.write(bytes);
  });
}

test(
  `garbage on ${CONNECTIONS} connections neither ends the broker nor stalls nor fills it (invariants 21, 22)`,
  async (context) => {
    const programme = new Programme(context);
    const below = (limit: number): number => programme.below(limit);
    const httpPort = await freePort();
    const flags = ['--http', `127.0.0.1:${httpPort}`];
    const broker = await BrokerProcess.start(undefined, flags, { watched: true });
    try {
      const ports = [Number(broker.address.split(':')[1]), httpPort];
      const before = await broker.vitals('forget');
      let left = CONNECTIONS;
      const fuzz = async (): Promise<void> => {
        while (left > 0) {
          left--;
          const random = Buffer.from(Array.from({ length: 1 + below(300) }, () => below(256)));
          const bytes = below(8) === 0 ? random : mutate(SEEDS[below(SEEDS.length)]!, below);
          await send(ports[below(2)]!, bytes);
          if (broker.ended) throw new Error(`the broker ended at or before ${bytes.toString('hex')}`);
          programme.tried('connections');
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, fuzz));
      expect(await health(`127.0.0.1:${httpPort}`)).toEqual({ status: 'SERVING', failures: [] });
      const connection = await RawConnection.open(broker.address);
      const call = { limitMs: 20_000 };
      expect((await connection.call('/tidelog.v1.AdminService/ListTopics', framed(Buffer.alloc(0)), call)).code).toBe(
        0,
      );
      connection.close();
      const after = await broker.vitals('collect');
      expect(after.longestMs).toBeLessThan(STALL_MS);
      expect(after.heldBytes - before.heldBytes).toBeLessThan(32 * MIB);
    } finally {
      await broker.stopAndRemove();
    }
  },
  inForm({ short: 60_000, long: 600_000 }),
);
