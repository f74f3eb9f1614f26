import { test } from 'vitest';
import { Episode } from './simulation/episode.js';
test('probe', () => {
  const lines: string[] = [];
  try { new Episode(182, (l) => lines.push(l)).run(4000); } catch (error) { console.log(lines.filter((l) => !/stands/.test(l)).slice(-70).join('\n'), String(error)); }
});
