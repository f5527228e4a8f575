import { deviationOfMean } from "../federation/deviation.ts";
import { isLoraA } from "../federation/low-rank.ts";
import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { mapParams, type Params, select, weightedMean } from "../tensor/params.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/**
 * FFA-LoRA: A stays at the random start that all clients draw from one seed; only B is trained, sent and averaged.
 * Since Σ p_k B_k A⁰ = B̄A⁰, the mean is exact.
 *
 * Sun et al., ICLR 2024, section 3. https://arxiv.org/abs/2403.12313
 */
export function ffaLora({ weighting = "samples" }: FedAvgOptions = {}): Strategy<Params> {
  const average = fedAvg({ weighting });
  return {
    ...average,
    name: "FFA-LoRA",
    paper: "Sun et al., ICLR 2024, section 3, https://arxiv.org/abs/2403.12313",
    declares: { ...average.declares, needsLowRank: true },
    broadcast: (state) => ({ params: withoutA(state) }),
    local: {
      trainable: (name) => !isLoraA(name),
      start: ({ initial, received }) => ({ params: replaced(initial, received.params) }), // A⁰ and B̄
      upload: ({ params }) => ({ params: withoutA(params) }),
    },
    aggregate(before, updates) {
      const weights = weightsOf("FFA-LoRA", updates, weighting); // n_k
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄ = Σ p_k B_k
      const after = replaced(before, mean);
      return {
        state: after,
        measurements: deviationOfMean({ who: "FFA-LoRA", updates, weights, before, after }),
      };
    },
  };
}

function withoutA(params: Params): Params {
  return select(params, (name) => !isLoraA(name));
}

function replaced(params: Params, by: Params): Params {
  return mapParams(params, (tensor, name) => by.get(name) ?? tensor);
}
