/**
 * A member of a group in a process of its own, until SIGTERM: then it leaves. What it does is appended to a file at once, line
 * by line, so that nothing that others could learn of is lost when it is killed.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { nowUs } from '../timed-history.js';
import type { MemberOptions } from './member-options.js';
import { startMember } from './start-member.js';

const options = JSON.parse(process.argv[2] ?? '') as MemberOptions;
const file = openSync(options.eventsFile, 'a');

const started = startMember(options, {
  add: (event, atUs = nowUs()) => void writeSync(file, `${JSON.stringify({ atUs, event })}\n`),
});
process.once('SIGTERM', () => void started.then((member) => member.leave()));
await (await started).ended;
closeSync(file);
