/** What the demo and its sorters have agreed on. */
import { json, string, type Topic, topic } from 'tidelog';
import type { Flight } from './data.js';

/** A flight with its place in the file. */
export interface NumberedFlight extends Flight {
  readonly id: number;
}

const flightsIn = (name: string): Topic<string, NumberedFlight> =>
  topic(name, { key: string(), value: json<NumberedFlight>() });

export const departures: Topic<string, NumberedFlight> = flightsIn('departures');
export const late: Topic<string, NumberedFlight> = flightsIn('late');
export const punctual: Topic<string, NumberedFlight> = flightsIn('punctual');

export const SORTERS = 'sorters';

const LATE_MINUTES = 15;

export function isLate({ delay }: Flight): boolean {
  return delay > LATE_MINUTES;
}
