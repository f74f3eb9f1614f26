/** What the machine gives without Tidelog: the same bytes through a bare file and through a bare gRPC stream. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fdatasync, openSync, rmSync, writev } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Client, credentials } from '@grpc/grpc-js';
import { BrokerProcess } from '../../test/support/broker-process.js';
import { BARE_METHOD, WINDOW_BYTES } from '../support/bare-grpc.js';
import { secondsOf } from '../support/stats.js';

const writeAll = promisify(writev);
const sync = promisify(fdatasync);

/** MB/s of one `fs.writev` after the other, `batchBytes` each. */
export async function bareWritev(totalBytes: number, batchBytes: number, syncEach: boolean): Promise<number> {
  const dir = BrokerProcess.temporaryDirectory();
  const fd = openSync(path.join(dir, 'file'), 'w');
  try {
    const buffer = Buffer.alloc(batchBytes, 'x');
    const seconds = await secondsOf(async () => {
      for (let written = 0; written < totalBytes; written += batchBytes) {
        await writeAll(fd, [buffer], written);
        if (syncEach) await sync(fd);
      }
    });
    return totalBytes / seconds / 1e6;
  } finally {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  }
}

const MAX_IN_FLIGHT = 16;

/** MB/s of one pipelined gRPC stream of `batchBytes` messages, each answered, to a server in its own process. */
export async function bareGrpcStream(totalBytes: number, batchBytes: number): Promise<number> {
  const script = fileURLToPath(new URL('../children/bare-grpc-server.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const client = new Client(`127.0.0.1:${Number(line.toString())}`, credentials.createInsecure(), {
      'grpc-node.flow_control_window': WINDOW_BYTES,
      'grpc.enable_retries': 0,
    });
    try {
      const message = Buffer.alloc(batchBytes, 'x');
      await pump(client, message, 32); // warm-up
      const count = Math.ceil(totalBytes / batchBytes);
      const seconds = await secondsOf(() => pump(client, message, count));
      return (count * batchBytes) / seconds / 1e6;
    } finally {
      client.close();
    }
  } finally {
    child.kill();
  }
}

async function pump(client: Client, message: Buffer, count: number): Promise<void> {
  const { path: method, requestSerialize, responseDeserialize } = BARE_METHOD;
  const stream = client.makeBidiStreamRequest(method, requestSerialize, responseDeserialize);
  let sent = 0;
  let answered = 0;
  const ended = once(stream, 'end');
  stream.on('data', () => {
    answered++;
    fill();
  });
  const fill = (): void => {
    while (sent < count && sent - answered < MAX_IN_FLIGHT) {
      sent++;
      stream.write(message);
    }
    if (sent === count) stream.end();
  };
  fill();
  await ended;
}
