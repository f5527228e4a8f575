import { difference, differenceName } from "../adapters/difference.ts";
import { lora } from "../adapters/lora.ts";
import { measurements } from "../federation/deviation.ts";
import {
  floats,
  floatTensor,
  isFactor,
  loraModules,
  loraPair,
  pairEntries,
  replaced,
  withoutProducts,
} from "../federation/low-rank.ts";
import type { StateTree, Strategy, Update } from "../federation/strategy.ts";
import { commonScaling, type Weighting, weightsOf } from "../federation/weights.ts";
import { mul } from "../graph/ops.ts";
import { ln } from "../tensor/elementary.ts";
import { leadingSvd } from "../tensor/linalg.ts";
import { type Matrix, matmul, matrix } from "../tensor/matrix.ts";
import { type Params, select, weightedMean } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fedIt } from "./fedit.ts";
import { leftHeavy } from "./flexlora.ts";

/** Options of SLoRA. */
export interface SloraOptions {
  /** Default: "samples", n_k. */
  readonly weighting?: Weighting;
  /** R₁, rounds of sparse training before the factors start; 0 is FedIT. Default: 5. */
  readonly sparseRounds?: number;
  /** ρ, the share of the weights that these rounds train. Default: 0.01. */
  readonly density?: number;
  /**
   * 𝓜, the positions that are trained in a module's weight of `size` entries, ascending. Default: each entry with
   * probability ρ, drawn from the seed by the server and all clients alike.
   */
  readonly mask?: (module: string, size: number, seed: number) => ArrayLike<number>;
}

/** State of SLoRA. */
export interface SloraState {
  readonly [key: string]: StateTree;
  /** The pairs, and what is trained beside them. */
  readonly params: Params;
  /** (W − W₀)[𝓜] of every adapted module; empty before the first round and after the last sparse one. */
  readonly difference: Params;
  /** Sparse rounds that are left. */
  readonly left: number;
  /** Seed of the mask, once it has been used. */
  readonly seed: number;
  readonly scaling: number;
}

const STAGE = "sparse";

/**
 * SLoRA: for some rounds clients train the same few random entries of the weights themselves; the leading singular
 * triplets of what these changed then start the factors, the base is as before, and FedIT goes on. Only the
 * trained entries travel, without their positions, which everybody draws from the seed.
 *
 * Babakniya et al., 2023, Algorithm 1. https://arxiv.org/abs/2308.06522
 */
export function slora({
  weighting = "samples",
  sparseRounds = 5,
  density = 0.01,
  mask = (module, size, seed) => drawn(module, { size, seed, density }),
}: SloraOptions = {}): Strategy<SloraState> {
  if (!(density > 0 && density <= 1))
    throw new RangeError(`slora: density is ${density}, expected more than 0 and at most 1`);
  const average = fedIt({ weighting });
  const modulesOf = (params: Params, seed: number): Masked[] =>
    loraModules(params).map((module) => {
      const { loraA, loraB } = loraPair(params, module);
      const shape = [loraB.shape[0] ?? 0, loraA.shape[1] ?? 0] as const;
      return { module, shape, like: loraA, positions: mask(module, shape[0] * shape[1], seed) };
    });
  return {
    name: "SLoRA",
    paper: "Babakniya et al., 2023, Algorithm 1, https://arxiv.org/abs/2308.06522",
    declares: average.declares,
    adapters: (options) => [lora(options), ...(sparseRounds > 0 ? [difference(options)] : [])],
    init: (params, clients) => ({
      params,
      difference: new Map(),
      left: sparseRounds,
      seed: 0,
      scaling: clients[0]?.scaling ?? 1,
    }),
    broadcast({ params, difference, left }) {
      if (left === 0) return { params };
      return { params: new Map([...difference, ...others(params)]), stage: STAGE };
    },
    stages: {
      [STAGE]: {
        trainable: (name) => !isFactor(name),
        start({ initial, received, context }) {
          const masked = modulesOf(initial, context.seed);
          return {
            params: new Map([
              ...replaced(withoutProducts(initial), received.params),
              ...masked.map((one) => spread(one, received.params.get(valuesName(one.module)))),
            ]),
            extra: new Map(masked.map(maskOf)),
          };
        },
        correct: (gradients, masks) =>
          new Map(
            [...gradients].map(([name, gradient]) => {
              const trained = masks.get(name);
              return [name, trained ? mul(gradient, trained) : gradient];
            }),
          ),
        upload({ initial, params, context }) {
          const packed = modulesOf(initial, context.seed).map((one) => gathered(one, params));
          return {
            params: new Map([...packed, ...select(others(params), (name) => initial.has(name))]),
          };
        },
      },
    },
    aggregate(state, updates, context) {
      if (state.left === 0) {
        const { state: params, ...rest } = average.aggregate(state.params, updates, context);
        return { state: { ...state, params }, ...rest };
      }
      const weights = weightsOf("SLoRA", updates, weighting); // n_k
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      ); // (W − W₀)[𝓜] = Σ p_k (W_k − W₀)[𝓜]
      const next: SloraState = {
        params: replaced(state.params, mean),
        difference: select(mean, (name) => !state.params.has(name)),
        left: state.left - 1,
        seed: context.seed,
        scaling: commonScaling("SLoRA", updates),
      };
      const { params, errors } = next.left === 0 ? switched(next) : { params: next.params, errors: [] };
      const measured = next.left === 0 ? errors : loraModules(params).map(exact);
      return {
        state: next.left === 0 ? { ...next, params, difference: new Map() } : next,
        measurements: isStreamed(updates) ? {} : measurements(measured),
      };
    },
    /** In the sparse rounds the best pairs for the difference so far. */
    global: (state) => (state.difference.size > 0 ? switched(state).params : state.params),
  };

  /** B⁰ = U_r Σ_r / s and A⁰ = V_rᵀ of every module's W − W₀; the rest of it is dropped. */
  function switched({ params, difference, seed, scaling }: SloraState): {
    readonly params: Params;
    readonly errors: { readonly module: string; readonly deviation: number; readonly ideal: number }[];
  } {
    const pairs = new Map<string, Tensor>();
    const errors = modulesOf(params, seed).map((one) => {
      const [, dense] = spread(one, difference.get(valuesName(one.module)));
      const delta: Matrix = matrix(...one.shape, floats(dense));
      const received = loraPair(params, one.module);
      const random = stream({ seed, purpose: `slora switch ${one.module}` });
      const { u, singularValues, vt } = leadingSvd(delta, received.loraA.shape[0] ?? 0, random);
      const start = { u, singularValues: singularValues.map((sigma) => sigma / scaling), vt };
      for (const [name, tensor] of pairEntries(one.module, leftHeavy(start, received)))
        pairs.set(name, tensor);
      const kept = matmul({ ...u, data: u.data.map((x, i) => x * singularValues[i % u.cols]!) }, vt);
      return {
        module: one.module,
        deviation: frobenius(delta.data.map((x, i) => x - kept.data[i]!)),
        ideal: frobenius(delta.data),
      };
    });
    return { params: replaced(params, pairs), errors };
  }
}

/** A module with the entries of its weight that are trained. */
interface Masked {
  readonly module: string;
  readonly shape: readonly [out: number, width: number];
  /** A tensor of the dtype of the trained ones. */
  readonly like: Tensor;
  readonly positions: ArrayLike<number>;
}

const valuesName = (module: string): string => `${module}.difference.values`;

/** Each entry with probability ρ: the gaps between them are geometric. */
function drawn(
  module: string,
  { size, seed, density }: { readonly size: number; readonly seed: number; readonly density: number },
): number[] {
  const random = stream({ seed, purpose: `slora mask ${module}` });
  const step = ln(1 - density);
  const positions: number[] = [];
  for (let at = -1; ; positions.push(at)) {
    at += density < 1 ? 1 + Math.floor(ln(1 - random.uniform()) / step) : 1;
    if (!(at < size)) return positions;
  }
}

/** The dense tensor of a module with the values at the trained positions and 0 elsewhere; all 0 where none have come yet. */
function spread(masked: Masked, values?: Tensor): [string, Tensor] {
  const source = values ? floats(values) : new Float64Array(masked.positions.length);
  const { module, shape, like, positions } = masked;
  const dense = new Float64Array(shape[0] * shape[1]);
  for (let i = 0; i < positions.length; i++) dense[positions[i] ?? 0] = source[i] ?? 0;
  return [differenceName(module), floatTensor(like, shape, dense)];
}

/** 1 at the trained positions. */
function maskOf(masked: Masked): [string, Tensor] {
  const ones = new Float64Array(masked.positions.length).fill(1);
  return spread(masked, floatTensor(masked.like, [ones.length], ones));
}

/** The values of a module's trained positions. */
function gathered({ module, like, positions }: Masked, params: Params): [string, Tensor] {
  const dense = floats(params.get(differenceName(module)) ?? like);
  const values = Float64Array.from(positions, (at) => dense[at] ?? 0);
  return [valuesName(module), floatTensor(like, [values.length], values)];
}

const frobenius = (data: Float64Array): number => Math.sqrt(data.reduce((sum, x) => sum + x * x, 0));

const others = (params: Params): Params => select(params, (name) => !isFactor(name));

const exact = (module: string) => ({ module, deviation: 0, ideal: 0 });

const isStreamed = (updates: readonly Update[]): boolean => updates.some(({ folded = 1 }) => folded > 1);
