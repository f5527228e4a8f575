import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy } from "../federation/strategy.ts";
import { type Weighting, weightsOf } from "../federation/weights.ts";
import { type Params, weightedMean } from "../tensor/params.ts";

/** Options of FedAvg and of the strategies that share its mean. */
export interface FedAvgOptions {
  /** Default: "samples", n_k. */
  readonly weighting?: Weighting;
}

/**
 * FedAvg: the next global model is the mean of the clients' models, weighted by their examples.
 *
 * McMahan et al., AISTATS 2017, Algorithm 1. https://arxiv.org/abs/1602.05629
 */
export function fedAvg({ weighting = "samples" }: FedAvgOptions = {}): Strategy<Params> {
  return {
    name: "FedAvg",
    paper: "McMahan et al., AISTATS 2017, Algorithm 1, https://arxiv.org/abs/1602.05629",
    declares: { weightedSum: true, uniformWeights: weighting === "uniform" },
    init: (initial) => initial,
    broadcast: (params) => ({ params }),
    aggregate(before, updates) {
      const weights = weightsOf("FedAvg", updates, weighting); // n_k
      const state = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      return {
        state,
        measurements: deviationOfMean({ who: "FedAvg", updates, weights, before, after: state }),
      };
    },
    global: (params) => params,
  };
}
