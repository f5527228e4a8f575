import type { LocalRule, Strategy } from "../federation/strategy.ts";
import type { Params } from "../tensor/params.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/** Options of FedFTG. */
export interface FedFtgOptions extends FedAvgOptions {
  /**
   * What aggregation does to a client's GaLore state, whose moments belong to weights that are no longer there: it is
   * kept, as in the released code; moments and the count that corrects them are new while projectors and the count of
   * their refresh go on; or all of it is new. Default: "kept".
   */
  readonly afterAggregation?: NonNullable<LocalRule["optimizerState"]>;
}

/**
 * FedFTG: clients train chosen weight matrices themselves (the up-projections) by GaLore, and the server takes their mean,
 * which is exact. Projectors and moments stay on the client: each has its own subspace, so they are never averaged.
 *
 * Mahla et al., 2024, section "Methodology". https://arxiv.org/abs/2410.23111
 */
export function fedFtg({ afterAggregation = "kept", ...options }: FedFtgOptions = {}): Strategy<Params> {
  const average = fedAvg(options); // W̄ = Σ (n_k/n) W_k
  return {
    ...average,
    name: "FedFTG",
    paper: 'Mahla et al., 2024, section "Methodology", https://arxiv.org/abs/2410.23111',
    declares: { ...average.declares, needsDense: true, needsProjection: true },
    local: { optimizerState: afterAggregation },
  };
}
