import { add, div, mul, sqrt, sub } from "../graph/ops.ts";
import { type Optimizer, type Rate, rateAt, take } from "./optimizer.ts";

export interface AdagradOptions {
  readonly learningRate: Rate;
  /** The rate is divided by `1 + (step − 1) * learningRateDecay`. */
  readonly learningRateDecay?: number;
  readonly weightDecay?: number;
  readonly initialAccumulator?: number;
  readonly epsilon?: number;
}

/** Adagrad: each coordinate's rate is divided by the root of its summed squared gradients. Duchi et al., JMLR 2011. */
export function adagrad(options: AdagradOptions): Optimizer {
  const {
    learningRate,
    learningRateDecay = 0,
    weightDecay = 0,
    initialAccumulator = 0,
    epsilon = 1e-10,
  } = options;
  return {
    name: "Adagrad",
    elementwise: true,
    state: (shape) => ({ sum: { shape, fill: initialAccumulator } }),
    scalars: (step) => ({ learningRate: rateAt(learningRate, step) / (1 + (step - 1) * learningRateDecay) }),
    update({ parameter, gradient, state, scalars }) {
      const g = weightDecay === 0 ? gradient : add(gradient, mul(parameter, weightDecay));
      const sum = add(take(state, "sum"), mul(g, g));
      const step = mul(div(g, add(sqrt(sum), epsilon)), take(scalars, "learningRate"));
      return { parameter: sub(parameter, step), state: { sum } };
    },
  };
}
