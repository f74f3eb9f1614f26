/** What a broker could do wrong. Each is built into the models in one place, so that it shows whether it would be found. */
export const DEFECTS = [
  'a marker ends a transaction of its own epoch or a later one',
  'a commit is answered before it is decided for good',
  'a commit is answered before its markers are written',
  'a commit is decided before its records are durable',
  'a commit is decided while offsets are still being added',
  'a timeout leaves the epoch as it was',
  'a takeover leaves the epoch as it was',
  'a partition is entered whatever the epoch of the producer',
  'a restart forgets that something may be missing',
  'a clean stop forgets that something may be missing',
  'a restart leaves open what it finds in partitions',
  'a restart leaves waiting what it finds in groups',
  'a restart aborts what was to be committed',
  'offsets are committed, and wait on',
  'offsets are told while others wait',
  'a transaction outlives the assignment of its input',
  'a repeated batch is appended',
  'readers read on to the high watermark',
  'the record of a completion is written over a later one',
  'what a restart has found is aborted after what comes meanwhile',
  'nobody looks at timeouts',
] as const;

export type Defect = (typeof DEFECTS)[number];

export type Defects = ReadonlySet<Defect>;
