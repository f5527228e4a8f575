import type { Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/**
 * FedIT: FedAvg of LoRA factors, A and B each on its own; off from the mean of the products by
 * R = Σ p_k B_k A_k − B̄Ā, which it measures.
 *
 * Zhang et al., ICASSP 2024, section 3. https://arxiv.org/abs/2305.05644
 */
export function fedIt(options: FedAvgOptions = {}): Strategy<Params> {
  const average = fedAvg(options);
  return {
    ...average,
    name: "FedIT",
    paper: "Zhang et al., ICASSP 2024, section 3, https://arxiv.org/abs/2305.05644",
    declares: { ...average.declares, needsLowRank: true },
  };
}
