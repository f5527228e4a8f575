import { deviationOfMean } from "../federation/deviation.ts";
import { floats, floatTensor } from "../federation/low-rank.ts";
import type { Strategy } from "../federation/strategy.ts";
import { weightsOf } from "../federation/weights.ts";
import { mapParams, type Params, weightedMean, zerosLike } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type FedAvgOptions, fedAvg } from "./fedavg.ts";

/** Options of the adaptive server optimizers. */
export interface FedOptOptions extends FedAvgOptions {
  /** η. Default: 1e-3. */
  readonly serverLearningRate?: number;
  /** Default: 0.9; 0 for FedAdagrad, as in the paper's experiments. */
  readonly beta1?: number;
  /** Default: 0.99. FedAdagrad has none. */
  readonly beta2?: number;
  /** Degree of adaptivity: added to √v, and v starts at τ². Default: 1e-3. */
  readonly tau?: number;
}

/** State of the adaptive server optimizers. */
export interface FedOptState {
  readonly [key: string]: Params;
  /** x */
  readonly params: Params;
  /** m */
  readonly momentum: Params;
  /** v */
  readonly secondMoment: Params;
}

/** FedAdagrad: v ← v + Δ². Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295 */
export function fedAdagrad(options: FedOptOptions = {}): Strategy<FedOptState> {
  return adaptive("FedAdagrad", { beta1: 0, ...options }, (v, delta) => v + delta * delta);
}

/** FedAdam: v ← β₂v + (1 − β₂)Δ². Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295 */
export function fedAdam(options: FedOptOptions = {}): Strategy<FedOptState> {
  const { beta2 = 0.99 } = options;
  return adaptive("FedAdam", options, (v, delta) => beta2 * v + (1 - beta2) * delta * delta);
}

/** FedYogi: v ← v − (1 − β₂)Δ² sign(v − Δ²). Reddi et al., ICLR 2021, Algorithm 2. https://arxiv.org/abs/2003.00295 */
export function fedYogi(options: FedOptOptions = {}): Strategy<FedOptState> {
  const { beta2 = 0.99 } = options;
  return adaptive("FedYogi", options, (v, delta) => {
    const square = delta * delta;
    return v - (1 - beta2) * square * Math.sign(v - square);
  });
}

/** The server step that the three share: Δ = mean − x; m ← β₁m + (1 − β₁)Δ; v by its rule; x ← x + ηm/(√v + τ). */
function adaptive(
  name: string,
  { serverLearningRate = 1e-3, beta1 = 0.9, tau = 1e-3, weighting = "samples" }: FedOptOptions,
  second: (v: number, delta: number) => number,
): Strategy<FedOptState> {
  const { declares } = fedAvg({ weighting });
  return {
    name,
    paper: "Reddi et al., ICLR 2021, Algorithm 2, https://arxiv.org/abs/2003.00295",
    declares,
    init: (params) => ({
      params,
      momentum: zerosLike(params),
      secondMoment: mapParams(params, (x) =>
        floatTensor(x, x.shape, new Float64Array(x.data.length).fill(tau * tau)),
      ),
    }),
    broadcast: ({ params }) => ({ params }),
    aggregate(before, updates) {
      const weights = weightsOf(name, updates, weighting);
      const mean = weightedMean(
        updates.map(({ params }) => params),
        weights,
      );
      const next = {
        params: new Map<string, Tensor>(),
        momentum: new Map<string, Tensor>(),
        secondMoment: new Map<string, Tensor>(),
      };
      for (const [tensorName, received] of before.params) {
        const x = Float64Array.from(floats(received));
        const target = floats(mean.get(tensorName) ?? received);
        const m = Float64Array.from(floats(before.momentum.get(tensorName) ?? received));
        const v = Float64Array.from(floats(before.secondMoment.get(tensorName) ?? received));
        for (let i = 0; i < x.length; i++) {
          const delta = target[i]! - x[i]!; // Δ_t
          m[i] = beta1 * m[i]! + (1 - beta1) * delta;
          v[i] = second(v[i]!, delta);
          x[i] = x[i]! + (serverLearningRate * m[i]!) / (Math.sqrt(v[i]!) + tau);
        }
        next.params.set(tensorName, floatTensor(received, received.shape, x));
        next.momentum.set(tensorName, floatTensor(received, received.shape, m));
        next.secondMoment.set(tensorName, floatTensor(received, received.shape, v));
      }
      const measurements = deviationOfMean({
        who: name,
        updates,
        weights,
        before: before.params,
        after: next.params,
      });
      return { state: next, measurements };
    },
    global: ({ params }) => params,
  };
}
