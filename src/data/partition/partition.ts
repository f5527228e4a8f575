import { TributaryError } from "../../errors.ts";

/** Who holds what: indices of examples by client, in the order of the clients. No example is with two clients. */
export type Partition = ReadonlyMap<string, readonly number[]>;

/** A label of an example: a class, or its name. */
export type Label = string | number;

/** What all random partitioners take. */
export interface PartitionOptions {
  readonly clients: number;
  readonly seed: number;
}

/** Gives lists of examples to clients named `client-0`, `client-1`, with as many digits as the last needs. */
export function named(shards: readonly (readonly number[])[]): Partition {
  const digits = String(shards.length - 1).length;
  return new Map(shards.map((indices, i) => [`client-${String(i).padStart(digits, "0")}`, indices]));
}

/** The partition itself if every client has at least `least` examples, else an error with the code `empty-silo`. */
export function withoutEmptySilos(who: string, partition: Partition, least = 1): Partition {
  const poor = [...partition].filter(([, indices]) => indices.length < least);
  const [first] = poor;
  if (first === undefined) return partition;
  const others = poor.length > 1 ? ` and ${poor.length - 1} more` : "";
  throw new TributaryError(
    "empty-silo",
    `${who}: the silo ${first[0]}${others} has ${first[1].length} examples, expected at least ${least}; use fewer clients or more data`,
  );
}

/** Draws until every client has `least` examples; after `attempts` draws an error with the code `empty-silo`. */
export function redrawn(
  who: string,
  least: number,
  attempts: number,
  draw: () => readonly (readonly number[])[],
): Partition {
  for (let attempt = 1; ; attempt++) {
    const shards = draw();
    if (shards.every((indices) => indices.length >= least)) return named(shards);
    if (attempt < attempts) continue;
    throw new TributaryError(
      "empty-silo",
      `${who}: in ${attempts} draws some silo had fewer than ${least} examples; raise alpha, use fewer clients, or lower minExamples`,
    );
  }
}

/** The indices of the examples of each label, labels in ascending order. */
export function byLabel(labels: readonly Label[]): Map<Label, number[]> {
  const found = new Map<Label, number[]>();
  for (const [i, label] of labels.entries()) {
    const indices = found.get(label);
    if (indices === undefined) found.set(label, [i]);
    else indices.push(i);
  }
  return new Map([...found].sort(([a], [b]) => compareLabels(a, b)));
}

/** Numbers by size, before names in the order of their code units. */
export function compareLabels(a: Label, b: Label): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Cuts a list into `count` stretches whose lengths differ by at most one, the longer ones first. */
export function cutEvenly(items: readonly number[], count: number): number[][] {
  const [short, longer] = [Math.floor(items.length / count), items.length % count];
  let start = 0;
  return Array.from({ length: count }, (_, i) => {
    const end = start + short + (i < longer ? 1 : 0);
    const stretch = items.slice(start, end);
    start = end;
    return stretch;
  });
}

/** Cuts a list at floor(cumulative share x length); the last stretch takes the rest. */
export function cutByShares(items: readonly number[], shares: readonly number[]): number[][] {
  let sum = 0;
  let start = 0;
  return shares.map((share, i) => {
    sum += share;
    const end =
      i === shares.length - 1 ? items.length : Math.min(items.length, Math.floor(sum * items.length));
    const stretch = items.slice(start, end);
    start = end;
    return stretch;
  });
}

/** Refuses numbers of clients and examples that no partitioner can use. */
export function checkClients(who: string, clients: number, numExamples: number): void {
  if (!(Number.isInteger(clients) && clients >= 1)) {
    throw new RangeError(`${who}: clients ${clients}, expected an integer of at least 1`);
  }
  if (clients > numExamples) {
    throw new TributaryError(
      "empty-silo",
      `${who}: ${clients} clients for ${numExamples} examples leave a silo empty; use fewer clients`,
    );
  }
}

/** Refuses a concentration that is no positive number. */
export function checkAlpha(who: string, alpha: number): void {
  if (!(alpha > 0 && Number.isFinite(alpha)))
    throw new RangeError(`${who}: alpha ${alpha}, expected a number above 0`);
}
