import { add, div, max, mul, reduceMean, reshape, sqrt, sub } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { type Optimizer, type Rate, rateAt, take } from "./optimizer.ts";

export interface AdafactorOptions {
  /** Not used where `relativeStep` is set. */
  readonly learningRate?: Rate;
  /** Multiply the rate by the root mean square of the parameter. */
  readonly scaleParameter?: boolean;
  /** Take the rate from the step: `min(limit, 1/√t)`, limit 1e-2, or 1e-6 t with `warmupInit`. */
  readonly relativeStep?: boolean;
  readonly warmupInit?: boolean;
  /** Largest root mean square of an update. */
  readonly clipThreshold?: number;
  /** The second moment decays by `1 − t^decayRate`. */
  readonly decayRate?: number;
  /** Decay of the first moment; absent keeps none. */
  readonly beta1?: number;
  /** Added to squared gradients; least root mean square of a parameter. */
  readonly epsilon?: readonly [number, number];
  readonly weightDecay?: number;
}

const rms = (x: Value): Value => sqrt(reduceMean(mul(x, x)));

/**
 * Adafactor: the second moment of a matrix is kept as its row and column means.
 *
 * Shazeer and Stern, ICML 2018, Algorithms 4 and 5. https://arxiv.org/abs/1804.04235
 */
export function adafactor(options: AdafactorOptions = {}): Optimizer {
  const { learningRate = 1e-3, scaleParameter = true, relativeStep = false, warmupInit = false } = options;
  const { clipThreshold = 1, decayRate = -0.8, beta1, epsilon = [1e-30, 1e-3], weightDecay = 0 } = options;
  const rate = (step: number): number =>
    relativeStep
      ? Math.min(warmupInit ? 1e-6 * step : 1e-2, 1 / Math.sqrt(step))
      : rateAt(learningRate, step);
  return {
    name: "Adafactor",
    elementwise: false,
    state(shape) {
      const [rows, columns] = shape;
      const factored = shape.length === 2 && rows !== undefined && columns !== undefined;
      return {
        ...(factored
          ? { row: { shape: [rows], fill: 0 }, column: { shape: [columns], fill: 0 } }
          : { square: { shape, fill: 0 } }),
        ...(beta1 === undefined ? {} : { firstMoment: { shape, fill: 0 } }),
      };
    },
    scalars: (step) => ({ learningRate: rate(step), decay: 1 - step ** decayRate, fresh: step ** decayRate }),
    update({ parameter, gradient, state, scalars }) {
      const [decay, fresh] = [take(scalars, "decay"), take(scalars, "fresh")];
      const average = (old: Value, next: Value): Value => add(mul(old, decay), mul(next, fresh));
      const square = add(mul(gradient, gradient), epsilon[0]);
      const next: Record<string, Value> = {};
      let second: Value;
      if (state.row && state.column) {
        const row = average(state.row, reduceMean(square, { axes: [1] })); // R
        const column = average(state.column, reduceMean(square, { axes: [0] })); // C
        const share = div(row, reduceMean(row));
        second = mul(reshape(share, [...row.shape, 1]), reshape(column, [1, ...column.shape])); // R Cᵀ / mean(R)
        Object.assign(next, { row, column });
      } else {
        second = average(take(state, "square"), square);
        next.square = second;
      }
      const direction = div(gradient, sqrt(second));
      const clipped = div(direction, max(div(rms(direction), clipThreshold), 1));
      const learning = take(scalars, "learningRate");
      const step = scaleParameter ? mul(learning, max(rms(parameter), epsilon[1])) : learning;
      let update = mul(clipped, step);
      if (beta1 !== undefined) {
        update = add(mul(take(state, "firstMoment"), beta1), mul(update, 1 - beta1));
        next.firstMoment = update;
      }
      const kept = weightDecay === 0 ? parameter : sub(parameter, mul(mul(parameter, step), weightDecay));
      return { parameter: sub(kept, update), state: next };
    },
  };
}
