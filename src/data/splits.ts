import { stream } from "../tensor/random.ts";

export interface SplitOptions {
  /** Share of the examples held out for validation; 0 for none. */
  readonly validation?: number;
  /** Share of the examples held out for testing; 0 for none. */
  readonly test?: number;
  readonly seed: number;
  /** Splits of different clients by one seed differ. */
  readonly client?: string;
}

/** Indices of examples, ascending, each in one part. */
export interface Split {
  readonly train: readonly number[];
  readonly validation: readonly number[];
  readonly test: readonly number[];
}

/**
 * Divides `count` examples at random. A share above 0 gives at least one example while training keeps one; the same seed
 * gives the same split.
 */
export function split(count: number, { validation = 0, test = 0, seed, client }: SplitOptions): Split {
  for (const [name, share] of Object.entries({ validation, test })) {
    if (!(share >= 0 && share < 1))
      throw new RangeError(`split: ${name} ${share}, expected a share from 0 to below 1`);
  }
  if (validation + test >= 1)
    throw new RangeError(`split: validation and test are ${validation + test} of all, expected less than 1`);
  const order = stream({ seed, purpose: "split", ...(client === undefined ? {} : { client }) }).permutation(
    count,
  );
  const heldOut = (share: number, spare: number): number =>
    share === 0 ? 0 : Math.min(Math.max(1, Math.round(share * count)), Math.max(0, spare));
  const numTest = heldOut(test, count - 1);
  const numValidation = heldOut(validation, count - 1 - numTest);
  const ascending = (indices: number[]): number[] => indices.sort((a, b) => a - b);
  return {
    test: ascending(order.slice(0, numTest)),
    validation: ascending(order.slice(numTest, numTest + numValidation)),
    train: ascending(order.slice(numTest + numValidation)),
  };
}
