import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { add, addScaled, type Params, scale, sub, weightedMean, zerosLike } from "../tensor/params.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/** Options of FedAvgM. */
export interface FedAvgMOptions extends FedAvgOptions {
  /** η. Default: 1. */
  readonly serverLearningRate?: number;
  /** β; 0 is FedAvg. Default: 0.9. */
  readonly beta?: number;
}

/** State of FedAvgM. */
export interface FedAvgMState {
  readonly [key: string]: Params;
  /** x */
  readonly params: Params;
  /** m, the decaying sum of the rounds' moves Δ */
  readonly momentum: Params;
}

/**
 * FedAvgM: the server goes on along the decaying sum of the rounds' moves: Δ = mean − x, m ← βm + Δ, x ← x + ηm.
 *
 * Hsu et al., 2019, section 4.3. https://arxiv.org/abs/1909.06335
 */
export function fedAvgM({
  serverLearningRate = 1,
  beta = 0.9,
  weighting = "samples",
}: FedAvgMOptions = {}): Strategy<FedAvgMState> {
  if (!(beta >= 0 && beta < 1)) throw new RangeError(`fedAvgM: beta is ${beta}, expected a number in [0, 1)`);
  return {
    name: "FedAvgM",
    paper: "Hsu et al., 2019, section 4.3, https://arxiv.org/abs/1909.06335",
    declares: fedAvg({ weighting }).declares,
    init: (params) => ({ params, momentum: zerosLike(params) }),
    broadcast: ({ params }) => ({ params }),
    aggregate({ params: x, momentum: m }, updates) {
      const weights = weightsOf("FedAvgM", updates, weighting); // n_k
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      const momentum = add(scale(m, beta), sub(mean, x));
      const params = addScaled(x, serverLearningRate, momentum);
      return {
        state: { params, momentum },
        measurements: deviationOfMean({ who: "FedAvgM", updates, weights, before: x, after: params }),
      };
    },
    global: ({ params }) => params,
  };
}
