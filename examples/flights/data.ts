/** A quarter of US flights, from the npm package vega-datasets, and what can be told from the file alone. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { json, keyPartitioner, string, type Topic, topic } from 'tidelog';

export interface Flight {
  /** `2001/01/31 07:05`; the file names no time zone, so this example takes all times as UTC. */
  readonly date: string;
  /** Minutes; negative when early. */
  readonly delay: number;
  /** Miles. */
  readonly distance: number;
  readonly origin: string;
  readonly destination: string;
}

/** A flight as it is written: which copy of it this is tells repeated records apart. */
export interface FlightRecord extends Flight {
  readonly copy: number;
}

export const flightsTopic: Topic<string, FlightRecord> = topic('flights', {
  key: string(),
  value: json<FlightRecord>(),
});

/** All flights of the file, in order of their dates. */
export function loadFlights(): readonly Flight[] {
  const entry = createRequire(import.meta.url).resolve('vega-datasets');
  const file = path.join(path.dirname(entry), '..', 'data', 'flights-20k.json');
  return JSON.parse(readFileSync(file, 'utf8')) as Flight[];
}

/** ms since the epoch. */
export function departureMs({ date }: Flight): number {
  return Date.parse(`${date.replaceAll('/', '-').replace(' ', 'T')}:00Z`);
}

/** The flights that each partition must hold, in order: the SDK places keys as Kafka's Java client does. */
export function flightsByPartition(flights: readonly Flight[], partitionCount: number): readonly Flight[][] {
  const partitions = Array.from({ length: partitionCount }, (): Flight[] => []);
  for (const flight of flights) {
    const partition = keyPartitioner(Buffer.from(flight.origin), partitionCount, '') ?? 0;
    partitions[partition]?.push(flight);
  }
  return partitions;
}

/** Sums of delays by airport. Whole numbers, so that two ways of adding them up agree exactly. */
export class Delays {
  readonly #sums = new Map<string, { count: number; minutes: number }>();

  add({ origin, delay }: Flight, times = 1): void {
    const sum = this.#sums.get(origin);
    if (sum === undefined) this.#sums.set(origin, { count: times, minutes: delay * times });
    else {
      sum.count += times;
      sum.minutes += delay * times;
    }
  }

  /** Airports with their mean delay in minutes, the busiest first. */
  means(): readonly { readonly airport: string; readonly count: number; readonly meanMinutes: number }[] {
    return [...this.#sums]
      .map(([airport, { count, minutes }]) => ({ airport, count, meanMinutes: minutes / count }))
      .sort((a, b) => b.count - a.count || a.airport.localeCompare(b.airport));
  }

  equals(other: Delays): boolean {
    return JSON.stringify(this.means()) === JSON.stringify(other.means());
  }
}
