import type { Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { type BufferedOptions, type BufferedState, buffered } from "../wrappers/buffered.ts";
import { fedAvg } from "./fedavg.ts";

/**
 * FedBuff: θ ← θ + (η/K) Σ s(τ_i) Δ_i over a buffer of K updates, each from a model τ_i aggregations old.
 *
 * Nguyen et al., AISTATS 2022, Algorithm 1. https://arxiv.org/abs/2106.06639
 */
export function fedBuff(options: BufferedOptions = {}): Strategy<BufferedState<Params>> {
  return {
    ...buffered(fedAvg({ weighting: "uniform" }), options),
    name: `FedBuff${options.maxStaleness ? `, up to ${options.maxStaleness} late` : ""}`,
    paper: "Nguyen et al., AISTATS 2022, Algorithm 1, https://arxiv.org/abs/2106.06639",
  };
}
