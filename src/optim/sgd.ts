import { add, mul, sub } from "../graph/ops.ts";
import { type Optimizer, type Rate, rateAt, take } from "./optimizer.ts";

export interface SgdOptions {
  readonly learningRate: Rate;
  /** Share of the previous direction that is kept; 0 keeps no state. */
  readonly momentum?: number;
  /** Share of the gradient that does not enter the momentum, from the second step on. */
  readonly dampening?: number;
  readonly nesterov?: boolean;
  /** L2 penalty added to the gradient. */
  readonly weightDecay?: number;
}

/**
 * Stochastic gradient descent with momentum: `b ← μ b + (1 − d) g`, `p ← p − η b`; Nesterov steps along `g + μ b`.
 *
 * Sutskever et al., ICML 2013, in the form of PyTorch (the first step takes `b = g`).
 */
export function sgd({
  learningRate,
  momentum = 0,
  dampening = 0,
  nesterov = false,
  weightDecay = 0,
}: SgdOptions): Optimizer {
  return {
    name: "SGD",
    elementwise: true,
    state: (shape) => (momentum === 0 ? {} : { momentum: { shape, fill: 0 } }),
    scalars: (step) => ({ learningRate: rateAt(learningRate, step), fresh: step === 1 ? 1 : 1 - dampening }),
    update({ parameter, gradient, state, scalars }) {
      const g = weightDecay === 0 ? gradient : add(gradient, mul(parameter, weightDecay));
      const step = take(scalars, "learningRate");
      if (momentum === 0) return { parameter: sub(parameter, mul(g, step)), state: {} };
      const buffer = add(mul(take(state, "momentum"), momentum), mul(g, take(scalars, "fresh")));
      const direction = nesterov ? add(g, mul(buffer, momentum)) : buffer;
      return { parameter: sub(parameter, mul(direction, step)), state: { momentum: buffer } };
    },
  };
}
