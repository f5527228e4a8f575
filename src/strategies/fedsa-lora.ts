import { vera } from "../adapters/vera.ts";
import { isLoraA } from "../federation/low-rank.ts";
import type { StateTree, Strategy } from "../federation/strategy.ts";
import { type Weighting, weightsOf } from "../federation/weights.ts";
import { mapParams, type Params, select, weightedMean } from "../tensor/params.ts";

/** Options of FedSA-LoRA. */
export interface FedsaLoraOptions {
  /** Default: "samples", n_k. */
  readonly weighting?: Weighting;
  /**
   * Which of the trained tensors travel. Default: A of LoRA and λ_d of VeRA. All of them is FedIT, none of them isolated
   * training.
   */
  readonly isShared?: (name: string) => boolean;
}

/** State of FedSA-LoRA. */
export interface FedsaLoraState {
  readonly [key: string]: StateTree;
  /** The parameters before round 1: what a client that has never trained keeps for itself. */
  readonly initial: Params;
  /** Ā */
  readonly shared: Params;
}

/**
 * FedSA-LoRA: clients train A, B and head, but share A alone, which holds what they have in common; B and head stay. The
 * rsLoRA form differs in the adapter's scaling only.
 *
 * Guo et al., ICLR 2025, section 3. https://arxiv.org/abs/2410.01463
 */
export function fedsaLora({
  weighting = "samples",
  isShared = isCommon,
}: FedsaLoraOptions = {}): Strategy<FedsaLoraState> {
  const shared = (params: Params): Params => select(params, isShared);
  const own = (params: Params): Params => select(params, (name) => !isShared(name));
  return {
    name: "FedSA-LoRA",
    paper: "Guo et al., ICLR 2025, section 3, https://arxiv.org/abs/2410.01463",
    declares: {
      weightedSum: true,
      personal: true,
      clientState: true,
      needsLowRank: true,
      uniformWeights: weighting === "uniform",
    },
    init: (initial) => ({ initial, shared: shared(initial) }),
    broadcast: (state) => ({ params: state.shared }),
    local: {
      remember: (_, initial) => own(initial), // B = 0
      start: ({ initial, received, memory }) => ({
        params: mapParams(initial, (x, name) => received.params.get(name) ?? memory.get(name) ?? x), // Ā, B_k
      }),
      upload: ({ params }) => ({ params: shared(params), memory: own(params) }),
    },
    aggregate({ initial }, updates) {
      const weights = weightsOf("FedSA-LoRA", updates, weighting); // n_k
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // Ā = Σ p_k A_k
      return { state: { initial, shared: mean } };
    },
    global: (state) => mapParams(state.initial, (x, name) => state.shared.get(name) ?? x),
  };
}

/**
 * FedSA-VeRA: the vector λ_d of VeRA travels, λ_b and head stay. The rank is that of the shared random matrices, which all
 * clients draw alike; there is no scaling.
 *
 * Guo et al., ICLR 2025, section 3. https://arxiv.org/abs/2410.01463
 */
export function fedsaVera(options: FedsaLoraOptions = {}): Strategy<FedsaLoraState> {
  return {
    ...fedsaLora(options),
    name: "FedSA-VeRA",
    adapters: ({ rank, target, exclude = [], modulesToSave = [] }) => [
      vera({ rank, target, exclude, modulesToSave }),
    ],
  };
}

function isCommon(name: string): boolean {
  return isLoraA(name) || name.endsWith(".vera_lambda_d");
}
