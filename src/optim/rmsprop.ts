import { add, div, mul, sqrt, sub } from "../graph/ops.ts";
import { type Optimizer, type Rate, rateAt, take } from "./optimizer.ts";

export interface RmspropOptions {
  readonly learningRate: Rate;
  /** Decay of the mean square. */
  readonly alpha?: number;
  readonly epsilon?: number;
  readonly momentum?: number;
  /** Subtract the squared mean gradient, so that the variance divides. */
  readonly centered?: boolean;
  readonly weightDecay?: number;
}

/** RMSProp: the gradient is divided by a running root mean square. Tieleman and Hinton, 2012, lecture 6.5; form of PyTorch. */
export function rmsprop(options: RmspropOptions): Optimizer {
  const {
    learningRate,
    alpha = 0.99,
    epsilon = 1e-8,
    momentum = 0,
    centered = false,
    weightDecay = 0,
  } = options;
  return {
    name: "RMSprop",
    elementwise: true,
    state: (shape) => ({
      square: { shape, fill: 0 },
      ...(centered ? { mean: { shape, fill: 0 } } : {}),
      ...(momentum === 0 ? {} : { momentum: { shape, fill: 0 } }),
    }),
    scalars: (step) => ({ learningRate: rateAt(learningRate, step) }),
    update({ parameter, gradient, state, scalars }) {
      const g = weightDecay === 0 ? gradient : add(gradient, mul(parameter, weightDecay));
      const square = add(mul(take(state, "square"), alpha), mul(mul(g, g), 1 - alpha));
      const mean = centered ? add(mul(take(state, "mean"), alpha), mul(g, 1 - alpha)) : undefined;
      const variance = mean ? sub(square, mul(mean, mean)) : square;
      const scaled = div(g, add(sqrt(variance), epsilon));
      const buffer = momentum === 0 ? undefined : add(mul(take(state, "momentum"), momentum), scaled);
      return {
        parameter: sub(parameter, mul(buffer ?? scaled, take(scalars, "learningRate"))),
        state: { square, ...(mean ? { mean } : {}), ...(buffer ? { momentum: buffer } : {}) },
      };
    },
  };
}
