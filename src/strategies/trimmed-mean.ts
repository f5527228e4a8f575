import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { reduceSorted } from "../tensor/order-statistics.ts";
import type { Params } from "../tensor/params.ts";
import { fedAvg } from "./fedavg.ts";

/** Options of the trimmed mean. */
export interface TrimmedMeanOptions {
  /** Share β of the values that is dropped at each end, rounded down to whole clients; below 1/2. Default: 0.1. */
  readonly beta?: number;
}

/**
 * Coordinate-wise trimmed mean: every number of the next model is the mean of the clients' numbers without the ⌊βK⌋
 * largest and the ⌊βK⌋ smallest. Examples do not count.
 *
 * Yin et al., ICML 2018, Algorithm 1, option II. https://arxiv.org/abs/1803.01498
 */
export function trimmedMean({ beta = 0.1 }: TrimmedMeanOptions = {}): Strategy<Params> {
  if (!(beta >= 0 && beta < 0.5))
    throw new RangeError(`trimmedMean: beta is ${beta}, expected 0 or more and less than 0.5`);
  return {
    ...fedAvg(),
    name: "Trimmed mean",
    paper: "Yin et al., ICML 2018, Algorithm 1, option II, https://arxiv.org/abs/1803.01498",
    declares: { moduleWise: true },
    aggregate(before, updates) {
      const weights = weightsOf("Trimmed mean", updates, "samples");
      const dropped = trimmedPerEnd(beta, updates.length);
      const state = reduceSorted(
        updates.map(({ params }) => params),
        (ascending) => {
          let sum = 0;
          for (let k = dropped; k < ascending.length - dropped; k++) sum += ascending[k] ?? Number.NaN;
          return sum / (ascending.length - 2 * dropped);
        },
      );
      const compared = { who: "Trimmed mean", updates, weights, before, after: state };
      return { state, measurements: deviationOfMean(compared) };
    },
  };
}

/** ⌊βK⌋, where a product that only rounding keeps below a whole number counts as that number. */
export function trimmedPerEnd(beta: number, clients: number): number {
  return Math.floor(beta * clients * (1 + 2 ** -50));
}
