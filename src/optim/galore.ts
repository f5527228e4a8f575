import { add, div, matMul, mul, sqrt, sub } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { type Optimizer, type Projection, type Rate, rateAt, type StateSpec, take } from "./optimizer.ts";

/** Options of GaLore, whatever steps inside the subspace. */
export interface GaloreOptions {
  readonly learningRate: Rate;
  /** Dimension of the subspace r; at most the smaller side of a matrix. Default: 8. */
  readonly rank?: number;
  /** Steps T between two refreshes of the subspace. Default: 200. */
  readonly gap?: number;
  /** α, the factor of the step that is projected back; not of the decay. Default: 0.25. */
  readonly scale?: number;
  /**
   * Which singular vectors project: the right ones of a matrix [out, in] with out >= in and else the left ones (std), the
   * opposite, always the same, or both. Default: "std".
   */
  readonly side?: "std" | "reverse-std" | "left" | "right" | "full";
  /** How singular vectors are found. Default: "auto". */
  readonly decomposition?: Projection["decomposition"];
  /** Which matrices are projected, by name; the others take the plain step. Default: all. */
  readonly projects?: (parameter: string) => boolean;
  /** Decay of the weight itself by `1 − η λ`, after the step. Default: 0. */
  readonly weightDecay?: number;
}

/** Options of GaLore with Adam in the subspace. */
export interface GaloreAdamOptions extends GaloreOptions {
  /** Decay of the first and of the second moment. Default: [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment before its correction. Default: 1e-6. */
  readonly epsilon?: number;
}

/** The rule inside the subspace: the step along a projected gradient, its rate included. */
interface Inner {
  state(shape: readonly number[]): Readonly<Record<string, StateSpec>>;
  scalars(step: number): Readonly<Record<string, number>>;
  step(
    gradient: Value,
    state: Readonly<Record<string, Value>>,
    scalars: Readonly<Record<string, Value>>,
  ): { readonly step: Value; readonly state: Readonly<Record<string, Value>> };
}

/**
 * GaLore with AdamW: moments are kept of the projected gradient R = PᵀG alone, which is r x in or out x r instead of
 * out x in. A refresh of P leaves them as they are.
 *
 * Zhao et al., ICML 2024, Algorithm 2. https://arxiv.org/abs/2403.03507
 */
export function galoreAdamW({
  betas = [0.9, 0.999],
  epsilon = 1e-6,
  ...options
}: GaloreAdamOptions): Optimizer {
  const [beta1, beta2] = betas;
  const { learningRate } = options;
  return galore("GaLore AdamW", options, {
    state: (shape) => ({ firstMoment: { shape, fill: 0 }, secondMoment: { shape, fill: 0 } }),
    // η √(1 − β₂ᵗ) / (1 − β₁ᵗ)
    scalars: (step) => ({
      stepSize: (rateAt(learningRate, step) * Math.sqrt(1 - beta2 ** step)) / (1 - beta1 ** step),
    }),
    step(gradient, state, scalars) {
      const firstMoment = add(mul(take(state, "firstMoment"), beta1), mul(gradient, 1 - beta1)); // M
      const square = mul(mul(gradient, gradient), 1 - beta2);
      const secondMoment = add(mul(take(state, "secondMoment"), beta2), square); // V
      const direction = div(firstMoment, add(sqrt(secondMoment), epsilon)); // N
      return { step: mul(direction, take(scalars, "stepSize")), state: { firstMoment, secondMoment } };
    },
  });
}

/** GaLore with gradient descent: the gradient loses what lies outside the subspace; at full rank and scale 1 nothing. */
export function galoreSgd(options: GaloreOptions): Optimizer {
  return galore("GaLore SGD", options, {
    state: () => ({}),
    scalars: () => ({}),
    step: (gradient, _, scalars) => ({ step: mul(gradient, take(scalars, "learningRate")), state: {} }),
  });
}

function galore(name: string, options: GaloreOptions, inner: Inner): Optimizer {
  const { learningRate, rank = 8, gap = 200, scale = 0.25, side = "std" } = options;
  const { decomposition = "auto", projects = () => true, weightDecay = 0 } = options;
  for (const [option, value] of Object.entries({ rank, gap })) {
    if (!(Number.isInteger(value) && value >= 1))
      throw new RangeError(`galore: ${option} is ${value}, expected an integer of at least 1`);
  }
  return {
    name,
    elementwise: false,
    projection: { gap, decomposition },
    state(shape, parameter = "") {
      const [out, width] = shape;
      if (shape.length !== 2 || out === undefined || width === undefined || !projects(parameter))
        return inner.state(shape);
      const r = Math.min(rank, out, width);
      const { left, right } = sidesOf(side, out, width);
      return {
        ...(left && { leftProjector: { shape: [out, r], fill: 0 } }),
        ...(right && { rightProjector: { shape: [r, width], fill: 0 } }),
        ...inner.state([left ? r : out, right ? r : width]),
      };
    },
    scalars(step) {
      const rate = rateAt(learningRate, step);
      return { learningRate: rate, keep: 1 - rate * weightDecay, ...inner.scalars(step) };
    },
    update({ parameter, gradient, state, scalars }) {
      const { leftProjector: p, rightProjector: q } = state;
      const fromLeft = p ? matMul(p, gradient, { transA: true }) : gradient; // PᵀG
      const projected = q ? matMul(fromLeft, q, { transB: true }) : fromLeft; // R = PᵀGQᵀ
      const { step, state: next } = inner.step(projected, state, scalars);
      const backLeft = p ? matMul(p, step) : step;
      const back = q ? matMul(backLeft, q) : backLeft;
      const moved = sub(parameter, p || q ? mul(back, scale) : back); // W − α P N Q
      return { parameter: weightDecay === 0 ? moved : mul(moved, take(scalars, "keep")), state: next };
    },
  };
}

function sidesOf(
  side: NonNullable<GaloreOptions["side"]>,
  out: number,
  width: number,
): { readonly left: boolean; readonly right: boolean } {
  switch (side) {
    case "std":
      return { left: out < width, right: out >= width };
    case "reverse-std":
      return { left: out >= width, right: out < width };
    case "left":
    case "right":
      return { left: side === "left", right: side === "right" };
    case "full":
      return { left: true, right: true };
  }
}
