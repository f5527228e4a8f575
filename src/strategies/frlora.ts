import { lora } from "../adapters/lora.ts";
import { deviationOfMean } from "../federation/deviation.ts";
import { isFactor, productChange, replaced, withoutProducts } from "../federation/low-rank.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { commonScaling, type Weighting, weightsOf } from "../federation/weights.ts";
import { type Params, select, weightedMean } from "../tensor/params.ts";

/** Options of FRLoRA. */
export interface FrLoraOptions {
  /** The release counts clients alike. Default: "uniform". */
  readonly weighting?: Weighting;
}

/** State of FRLoRA. */
export interface FrLoraState {
  readonly [key: string]: StateTree;
  /** B₀ and A₀, the start of every client in every round. */
  readonly origin: Params;
  /** Means of what is trained beside the factors. */
  readonly others: Params;
}

/**
 * FRLoRA: every client starts every round from the same principal components B₀, A₀ of the pretrained weight, on a base
 * without them; the change of the mean product, B̄Ā − B₀A₀, goes into the frozen weights, which so gather updates of full
 * rank.
 *
 * Yan et al., ICLR 2025, Algorithm 1. https://openreview.net/forum?id=e0rQRMUhs7
 */
export function frLora({ weighting = "uniform" }: FrLoraOptions = {}): Strategy<FrLoraState> {
  return {
    name: "FRLoRA",
    paper: "Yan et al., ICLR 2025, Algorithm 1, https://openreview.net/forum?id=e0rQRMUhs7",
    declares: {
      moduleWise: true,
      changesBase: true,
      weightedSum: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    adapters: (options) => [lora({ ...options, init: "principal" })],
    init: (initial) => ({
      origin: select(initial, isFactor),
      others: select(initial, (name) => !isFactor(name)),
    }),
    broadcast: ({ others }) => ({ params: others }),
    local: {
      start: ({ initial, received }) => ({ params: replaced(initial, received.params) }), // B₀, A₀
      personalBase: ({ initial, client }) => [productChange(initial, -client.scaling)], // W − s B₀A₀
    },
    aggregate({ origin, others }, updates) {
      const weights = weightsOf("FRLoRA", updates, weighting);
      const average = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // B̄, Ā
      const scale = commonScaling("FRLoRA", updates);
      return {
        state: { origin, others: select(average, (name) => !isFactor(name)) },
        base: [{ ...productChange(average, scale), known: productChange(origin, scale) }], // W + s(B̄Ā − B₀A₀)
        measurements: deviationOfMean({
          who: "FRLoRA",
          updates,
          weights,
          before: replaced(origin, others),
          after: average,
        }),
      };
    },
    global: ({ origin, others }) => new Map([...withoutProducts(origin), ...others]),
  };
}
