import { measurements } from "../federation/deviation.ts";
import {
  factorMatrix,
  isFactor,
  likeTensor,
  loraModules,
  loraPair,
  meanOfOthers,
  prefix,
  replaced,
  restarted,
  withoutProducts,
} from "../federation/low-rank.ts";
import type { Strategy, Update } from "../federation/strategy.ts";
import { normalized, type Weighting, weightsOf } from "../federation/weights.ts";
import { type LowRankTerm, productNormSquared, stackTerms } from "../tensor/linalg.ts";
import { type Params, select } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Options of FLoRA. */
export interface FloraOptions {
  /** Default: "samples", n_k. */
  readonly weighting?: Weighting;
}

/**
 * FLoRA: the stack of the clients' factors, whose product is the mean of their products whatever their ranks, goes into
 * the frozen weights; then every client starts anew from B = 0 and an A of its own.
 *
 * Wang et al., NeurIPS 2024, section 3.2. https://arxiv.org/abs/2409.05976
 */
export function flora({ weighting = "samples" }: FloraOptions = {}): Strategy<Params> {
  return {
    name: "FLoRA",
    paper: "Wang et al., NeurIPS 2024, section 3.2, https://arxiv.org/abs/2409.05976",
    declares: {
      moduleWise: true,
      changesBase: true,
      unequalRanks: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init: (initial) => initial,
    broadcast: (params) => ({ params: select(params, (name) => !isFactor(name)) }),
    local: {
      start: ({ initial, received, client, context: { seed, round } }) => ({
        params: replaced(
          round === 1
            ? initial
            : restarted(initial, { seed, round, client: client.id, purpose: "flora restart" }),
          received.params,
        ),
      }),
    },
    aggregate(before, updates) {
      const weights = weightsOf("FLoRA", updates, weighting); // n_k
      const left = new Map<string, Tensor>();
      const right = new Map<string, Tensor>();
      const measured: { module: string; deviation: number; ideal: number }[] = [];
      for (const module of loraModules(before)) {
        const terms = weightedPairs(updates, weights, module);
        const stack = stackTerms(terms); // [B_1 | … | B_K], [p_1 s_1 A_1; …; p_K s_K A_K]
        const like = loraPair(before, module).loraB;
        left.set(`${module}.weight`, likeTensor(like, stack.left));
        right.set(`${module}.weight`, likeTensor(like, stack.right));
        measured.push({ module, deviation: 0, ideal: Math.sqrt(productNormSquared(terms)) });
      }
      return {
        state: replaced(withoutProducts(before), meanOfOthers(updates, weights)),
        base: left.size > 0 ? [{ kind: "factors", left, right, scale: 1 }] : [],
        measurements: measurements(measured),
      };
    },
    global: (params, client) => (client ? prefix(params, client.rank) : params),
  };
}

/** B_k and p_k s_k A_k: weight and scaling enter once, on A. */
function weightedPairs(
  updates: readonly Update[],
  weights: readonly number[],
  module: string,
): LowRankTerm[] {
  const p = normalized(weights);
  return updates.map(({ params, client }, k) => {
    const { loraA, loraB } = loraPair(params, module);
    const a = factorMatrix(loraA);
    const share = (p[k] ?? 0) * client.scaling;
    return {
      coefficient: 1,
      left: factorMatrix(loraB),
      right: { ...a, data: a.data.map((x) => share * x) },
    };
  });
}
