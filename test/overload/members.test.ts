/** Thousands of members that wait for news, on few connections. */
import { expect, test } from 'vitest';
import { RawGroup, RawMember } from '../listeners/grpc/group-support.js';
import { RawClient } from '../listeners/grpc/support.js';
import { BrokerProcess } from '../support/broker-process.js';
import { GoodClient } from '../support/good-client.js';
import { inForm } from '../support/programme.js';

const KIB = 1024;
const TOPIC = 'watched';
const CONNECTIONS = 4;
const GROUPS = 40;
const MEMBERS = inForm({ short: 2_000, long: 3_600 });
/** Of each that waits, with its call and its stream. */
const MEMBER_BYTES = 24 * KIB;

test(`${MEMBERS} held heartbeats on ${CONNECTIONS} connections take little memory and nobody's room (invariants 21, 22)`, async () => {
  const broker = await BrokerProcess.start(undefined, ['--group-session-timeout-ms', '120000'], { watched: true });
  // Without the option, clients to one address share their connection.
  const clients = Array.from(
    { length: CONNECTIONS },
    () => new RawClient(broker.address, { 'grpc.use_local_subchannel_pool': 1 }),
  );
  try {
    await clients[0]?.createTopic(TOPIC, 1);
    const good = await GoodClient.start(broker.address);
    const members = Array.from({ length: MEMBERS }, (_, index) => {
      const client = clients[index % CONNECTIONS];
      if (client === undefined) throw new Error('there is no client');
      return new RawMember(new RawGroup(client, `group-${index % GROUPS}`));
    });
    const before = await broker.vitals('collect');
    await Promise.all(members.map((member) => member.join({ subscription: { topics: [TOPIC], topicPattern: '' } })));
    let stopped = false;
    const failures: unknown[] = [];
    const wait = async (member: RawMember): Promise<void> => {
      while (!stopped) await member.heartbeat();
    };
    for (const member of members) {
      wait(member).catch((error: unknown) => {
        if (!stopped) failures.push(error);
      });
    }
    // Answered after the heartbeats were read.
    for (const client of clients) await client.call('AdminService', 'DescribeCluster', {});
    await broker.vitals('forget');
    await good.expectServed();
    expect((await broker.vitals()).longestMs).toBeLessThan(200);
    const during = await broker.vitals('collect');
    expect((during.heldBytes - before.heldBytes) / MEMBERS).toBeLessThan(MEMBER_BYTES);
    expect(failures).toEqual([]);
    stopped = true;
    await good.stop();
  } finally {
    for (const client of clients) client.close();
    await broker.stopAndRemove();
  }
}, 120_000);
