import { deviationOfMean } from "../federation/deviation.ts";
import {
  isFactor,
  productChange,
  replaced,
  restarted,
  scaledB,
  withoutProducts,
} from "../federation/low-rank.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { commonScaling, type Weighting, weightsOf } from "../federation/weights.ts";
import { type Params, select, weightedMean } from "../tensor/params.ts";

/** Options of FedLoRU. */
export interface FedLoruOptions {
  /** Default: "samples". */
  readonly weighting?: Weighting;
  /** Rounds τ from one merge to the next. Default: 5. */
  readonly mergeEvery?: number;
  /**
   * Whether clients start anew from B = 0 and a common fresh A after a merge. Algorithm 1 does not say so; without it the
   * merged product counts twice in the clients' weights. Default: true.
   */
  readonly reset?: boolean;
}

/** State of FedLoRU. */
export interface FedLoruState {
  readonly [key: string]: StateTree;
  /** B̄, Ā and what is trained beside them; B = 0 after a merge. */
  readonly params: Params;
  /** Whether the clients of the next round start from a fresh pair. */
  readonly fresh: boolean;
}

/**
 * FedLoRU: clients and server exchange small factors only; every τ rounds the product of the mean factors goes into the
 * frozen weights, so that the sum of many updates of low rank reaches a high one. The paper's A is B here.
 *
 * Park and Klabjan, 2024, Algorithm 1. https://arxiv.org/abs/2409.12371
 */
export function fedLoru({
  weighting = "samples",
  mergeEvery = 5,
  reset = true,
}: FedLoruOptions = {}): Strategy<FedLoruState> {
  if (!(Number.isInteger(mergeEvery) && mergeEvery >= 1))
    throw new RangeError(`fedLoru: mergeEvery is ${mergeEvery}, expected a whole number of rounds >= 1`);
  return {
    name: "FedLoRU",
    paper: "Park and Klabjan, 2024, Algorithm 1, https://arxiv.org/abs/2409.12371",
    declares: {
      moduleWise: true,
      changesBase: true,
      weightedSum: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init: (params) => ({ params, fresh: false }),
    broadcast: ({ params, fresh }) => ({
      params: fresh ? select(params, (name) => !isFactor(name)) : params,
    }),
    local: {
      start: ({ initial, received: { params }, context: { seed, round } }) => ({
        params: [...params.keys()].some(isFactor)
          ? params
          : replaced(restarted(initial, { seed, round, purpose: "fedloru restart" }), params),
      }),
    },
    aggregate({ params: before }, updates, { round }) {
      const weights = weightsOf("FedLoRU", updates, weighting); // p_k
      const average = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄, Ā
      const merges = round % mergeEvery === 0;
      const after = merges && !reset ? scaledB(average, 2) : average; // once in the base, once in the factors
      const measured = deviationOfMean({ who: "FedLoRU", updates, weights, before, after });
      if (!merges) return { state: { params: average, fresh: false }, measurements: measured };
      return {
        state: { params: reset ? withoutProducts(average) : average, fresh: reset },
        base: [productChange(average, commonScaling("FedLoRU", updates))], // W ← W + s B̄Ā
        measurements: measured,
      };
    },
    global: ({ params }) => params,
  };
}
