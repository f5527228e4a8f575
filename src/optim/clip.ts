import { add, div, min, mul, sqrt, squaredNorm } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";

/** Root of the sum of squares over all tensors of a set, a scalar. */
export function globalNorm(values: Iterable<Value>): Value {
  let total: Value | undefined;
  for (const value of values) total = total ? add(total, squaredNorm(value)) : squaredNorm(value);
  if (!total) throw new RangeError("globalNorm: got no tensors");
  return sqrt(total);
}

/** Scales all gradients by `min(1, maxNorm / (norm + 1e-6))`. Pascanu et al., ICML 2013, with PyTorch's constant. */
export function clipByGlobalNorm(gradients: readonly Value[], norm: Value, maxNorm: number): Value[] {
  const factor = min(div(maxNorm, add(norm, 1e-6)), 1);
  return gradients.map((gradient) => mul(gradient, factor));
}
