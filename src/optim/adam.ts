import { add, div, max, mul, sqrt, sub } from "../graph/ops.ts";
import { type Optimizer, type Rate, rateAt, take } from "./optimizer.ts";

export interface AdamOptions {
  readonly learningRate: Rate;
  /** Decay of the first and of the second moment. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. */
  readonly epsilon?: number;
  /** L2 penalty added to the gradient (Adam), or decay of the weight itself (AdamW). */
  readonly weightDecay?: number;
  /** Divide by the largest second moment so far. Reddi et al., ICLR 2018. */
  readonly amsgrad?: boolean;
}

/** Adam. Kingma and Ba, ICLR 2015, Algorithm 1; weight decay is L2 regularization. */
export function adam(options: AdamOptions): Optimizer {
  return { ...moments(options, "coupled"), name: "Adam" };
}

/** AdamW: the weight decays by `η λ` before the Adam step. Loshchilov and Hutter, ICLR 2019, Algorithm 2. */
export function adamw({ weightDecay = 0.01, ...options }: AdamOptions): Optimizer {
  return { ...moments({ ...options, weightDecay }, "decoupled"), name: "AdamW" };
}

function moments(options: AdamOptions, decay: "coupled" | "decoupled"): Omit<Optimizer, "name"> {
  const { learningRate, betas = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0, amsgrad = false } = options;
  const [beta1, beta2] = betas;
  return {
    elementwise: true,
    state: (shape) => ({
      firstMoment: { shape, fill: 0 },
      secondMoment: { shape, fill: 0 },
      ...(amsgrad ? { largest: { shape, fill: 0 } } : {}),
    }),
    // η / (1 − β₁ᵗ), √(1 − β₂ᵗ) and 1 − ηλ
    scalars(step) {
      const rate = rateAt(learningRate, step);
      return {
        learningRate: rate,
        stepSize: rate / (1 - beta1 ** step),
        rootCorrection: Math.sqrt(1 - beta2 ** step),
        keep: 1 - rate * weightDecay,
      };
    },
    update({ parameter, gradient, state, scalars }) {
      const coupled = decay === "coupled" && weightDecay !== 0;
      const g = coupled ? add(gradient, mul(parameter, weightDecay)) : gradient;
      const m = add(mul(take(state, "firstMoment"), beta1), mul(g, 1 - beta1));
      const v = add(mul(take(state, "secondMoment"), beta2), mul(mul(g, g), 1 - beta2));
      const bound = amsgrad ? max(take(state, "largest"), v) : v;
      const root = add(div(sqrt(bound), take(scalars, "rootCorrection")), epsilon);
      const kept =
        decay === "decoupled" && weightDecay !== 0 ? mul(parameter, take(scalars, "keep")) : parameter;
      return {
        parameter: sub(kept, mul(div(m, root), take(scalars, "stepSize"))),
        state: { firstMoment: m, secondMoment: v, ...(amsgrad ? { largest: bound } : {}) },
      };
    },
  };
}
