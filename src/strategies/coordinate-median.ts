import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { reduceSorted } from "../tensor/order-statistics.ts";
import type { Params } from "../tensor/params.ts";
import { fedAvg } from "./fedavg.ts";

/**
 * Coordinate-wise median: every number of the next model is the median of the clients' numbers, which fewer than half of
 * the clients cannot move beyond those of the others. Examples do not count. On LoRA factors it sees A and B, not BA.
 *
 * Yin et al., ICML 2018, Algorithm 1, option I. https://arxiv.org/abs/1803.01498
 */
export function coordinateMedian(): Strategy<Params> {
  return {
    ...fedAvg(),
    name: "Coordinate median",
    paper: "Yin et al., ICML 2018, Algorithm 1, option I, https://arxiv.org/abs/1803.01498",
    declares: { moduleWise: true },
    aggregate(before, updates) {
      const weights = weightsOf("Coordinate median", updates, "samples");
      const state = reduceSorted(
        updates.map(({ params }) => params),
        median,
      );
      const compared = { who: "Coordinate median", updates, weights, before, after: state };
      return { state, measurements: deviationOfMean(compared) };
    },
  };
}

/** The middle value, or the mean of the two in the middle. */
function median(ascending: Float64Array): number {
  const middle = ascending.length >> 1;
  const upper = ascending[middle] ?? Number.NaN;
  return ascending.length % 2 === 1 ? upper : ((ascending[middle - 1] ?? Number.NaN) + upper) / 2;
}
