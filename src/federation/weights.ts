import { TributaryError } from "../errors.ts";
import type { Update } from "./strategy.ts";

/** How clients count in a mean: by their examples, or all alike. */
export type Weighting = "samples" | "uniform";

/** The weight of each update, not normalized. Throws TributaryError (code `empty-round`) where there is nothing to weight. */
export function weightsOf(who: string, updates: readonly Update[], weighting: Weighting): number[] {
  if (updates.length === 0) {
    throw new TributaryError("empty-round", `${who}: no updates to aggregate; a round needs at least one`);
  }
  const weights = updates.map(({ numExamples, folded = 1 }) =>
    weighting === "uniform" ? folded : numExamples,
  );
  if (weights.every((weight) => weight === 0)) {
    throw new TributaryError("empty-round", `${who}: all ${updates.length} updates have numExamples 0`);
  }
  return weights;
}

/** Weights divided by their sum: p_k. */
export function normalized(weights: readonly number[]): number[] {
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

/** The scaling that all clients share. Throws TributaryError (code `unequal-scaling`) where they differ. */
export function commonScaling(who: string, updates: readonly Update[]): number {
  const [first, ...others] = updates.map(({ client }) => client);
  const other = others.find(({ scaling }) => scaling !== first?.scaling);
  if (other) {
    throw new TributaryError(
      "unequal-scaling",
      `${who}: client ${other.id} has scaling ${other.scaling}, ${first?.id} has ${first?.scaling}; give all one rank and alpha`,
    );
  }
  return first?.scaling ?? 1;
}
