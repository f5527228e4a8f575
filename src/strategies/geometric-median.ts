import { deviationOfMean } from "../federation/deviation.ts";
import type { Strategy } from "../federation/strategy.ts";
import { normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { norm, type Params, squaredDistance, sub, weightedMean } from "../tensor/params.ts";
import { fedAvg } from "./fedavg.ts";

/** Options of the geometric median. */
export interface GeometricMedianOptions {
  /** Default: "samples", n_k. */
  readonly weighting?: Weighting;
  /** Most steps of Weiszfeld's algorithm; it ends earlier where it stands still. Default: 3, the paper's budget. */
  readonly steps?: number;
  /** Distances ν below which a client counts no more for being near. Default: 1e-6. */
  readonly nu?: number;
}

/**
 * RFA: the next model is the geometric median of the clients' models, argmin_v Σ p_k ‖v − θ_k‖ over all tensors together,
 * by the smoothed Weiszfeld algorithm from the weighted mean.
 *
 * Pillutla et al., IEEE Transactions on Signal Processing 2022, Algorithm 2. https://arxiv.org/abs/1912.13445
 */
export function geometricMedian({
  weighting = "samples",
  steps = 3,
  nu = 1e-6,
}: GeometricMedianOptions = {}): Strategy<Params> {
  if (!(steps >= 0)) throw new RangeError(`geometricMedian: steps is ${steps}, expected 0 or more`);
  if (!(nu > 0)) throw new RangeError(`geometricMedian: nu is ${nu}, expected a number > 0`);
  return {
    ...fedAvg(),
    name: "Geometric median",
    paper: "Pillutla et al., IEEE TSP 2022, Algorithm 2, https://arxiv.org/abs/1912.13445",
    declares: { uniformWeights: weighting === "uniform" },
    aggregate(before, updates) {
      const weights = weightsOf("Geometric median", updates, weighting);
      const p = normalized(weights);
      const thetas = updates.map(({ params }) => params);
      let state = weightedMean(thetas, weights); // v
      for (let step = 0; step < steps; step++) {
        const v = state;
        const beta = thetas.map(
          (theta, k) => (p[k] ?? 0) / Math.max(nu, Math.sqrt(squaredDistance(v, theta))),
        );
        state = weightedMean(thetas, beta); // Σ β_k θ_k / Σ β_k
        if (norm(sub(state, v)) <= 1e-15 * norm(v)) break;
      }
      return {
        state,
        measurements: deviationOfMean({ who: "Geometric median", updates, weights, before, after: state }),
      };
    },
  };
}
