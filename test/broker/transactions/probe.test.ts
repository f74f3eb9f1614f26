import { test } from 'vitest';
import { DEFECTS } from './simulation/defects.js';
import { Episode } from './simulation/episode.js';
test('probe', () => {
  const c = process.cpuUsage();
  let commit=0, abort=0;
  for (let seed = 1; seed <= 200; seed++) {
    const e = new Episode(seed, undefined);
    try { e.run(4000); } catch (error) { console.log(seed, error instanceof Error ? error.stack : error); }
    commit += e.counts.commit; abort += e.counts.abort;
  }
  const u = process.cpuUsage(c);
  console.log(commit, abort, (u.user + u.system) / 1000);
  for (const defect of DEFECTS) {
    let caught = 0; const what = new Map<string, number>();
    const c = process.cpuUsage();
    for (let seed = 1; seed <= 60; seed++) {
      try { new Episode(seed, undefined, new Set([defect])).run(4000); } catch (error) { caught++; const k = String(error).replace(/[0-9]+/g, 'N'); what.set(k, (what.get(k) ?? 0) + 1); }
    }
    const u = process.cpuUsage(c);
    console.log(caught, '/20', (u.user+u.system)/1000, defect, [...what].map(([k, n]) => `\n        ${n} ${k}`).join(''));
  }
}, 220000);
