import { deviationOfMean, measurements } from "../federation/deviation.ts";
import { floats, floatTensor, isFactor, isLoraA, type LoraPair, loraModules, loraPair } from "../federation/low-rank.ts";
import type { BaseChange, RoundContext, StateTree, Strategy, Update } from "../federation/strategy.ts";
import { commonScaling, normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { type ProductTerm, type Svd, svdOfSum } from "../tensor/linalg.ts";
import { mapParams, type Params, select, weightedMean, zerosLike } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";

const paper = "Singhal et al., ACL 2025, https://arxiv.org/abs/2410.09432";

/** Options of all three assignments of FedEx-LoRA. */
export interface FedexLoraOptions {
  /** The paper weights clients alike. Default: "samples". */
  readonly weighting?: Weighting;
  /** Rank q of the residual that is sent; 0 is FedIT. Default: all of it, which makes the aggregate exact. */
  readonly residualRank?: number;
}

/**
 * FedEx-LoRA: averages A and B, then adds what that average got wrong, R = Σ p_k B_k A_k − B̄Ā, to the frozen weights:
 * the global model is the mean of the clients' models although the adapter keeps its rank. With `residualRank` the
 * best approximation of R of that rank.
 *
 * Singhal et al., ACL 2025, equations 5 to 16. https://arxiv.org/abs/2410.09432
 */
export function fedexLora({ weighting = "samples", residualRank }: FedexLoraOptions = {}): Strategy<Params> {
  return {
    name: "FedEx-LoRA",
    paper,
    declares: { changesBase: true, needsLowRank: true, uniformWeights: weighting === "uniform" },
    init: (adapter) => adapter,
    broadcast: (adapter) => ({ params: adapter }),
    aggregate(before, updates) {
      const weights = weightsOf("FedEx-LoRA", updates, weighting); // n_k
      const scaling = commonScaling("FedEx-LoRA", updates); // α / r
      const adapter = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄, Ā
      const residuals = loraModules(adapter).map((module) => ({
        module,
        svd: svdOfSum(residualTerms(updates, weights, module, loraPair(adapter, module))),
      }));
      return { state: adapter, base: [], measurements: {} };
    },
    global: (adapter) => adapter,
  };
}
