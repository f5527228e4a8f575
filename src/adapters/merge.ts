import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import { float32, type Tensor } from "../tensor/tensor.ts";
import type { AttachedAdapter } from "./adapter.ts";

/** `scale * left right` with left [out, rank] and right [rank, in]. */
export interface LowRank {
  readonly left: Tensor;
  readonly right: Tensor;
  readonly scale: number;
}

/** `weight + scale * left right` [out, in] in float32; each element is summed in float64 and rounded once. */
export function addLowRank(weight: Tensor, { left, right, scale }: LowRank): Tensor<"float32"> {
  const [out, from] = weight.shape;
  const rank = right.shape[0];
  if (out === undefined || from === undefined || rank === undefined) {
    throw new RangeError(
      `merge: got a weight [${weight.shape}] and a factor [${right.shape}], expected matrices`,
    );
  }
  if (left.shape[0] !== out || left.shape[1] !== rank || right.shape[1] !== from) {
    throw new RangeError(
      `merge: factors [${left.shape}] and [${right.shape}] do not give a change of [${weight.shape}]`,
    );
  }
  const [base, b, a] = [widen(weight).data, widen(left).data, widen(right).data];
  const merged = new Float32Array(base.length);
  const row = new Float64Array(from);
  for (let i = 0; i < out; i++) {
    row.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = b[i * rank + k]!;
      for (let j = 0; j < from; j++) row[j] = row[j]! + factor * a[k * from + j]!;
    }
    for (let j = 0; j < from; j++) merged[i * from + j] = base[i * from + j]! + scale * row[j]!;
  }
  return float32(weight.shape, merged);
}

/** Base weights with the adapters folded in, one after the other; untouched tensors are shared with `base`. */
export function mergeAdapters(base: Params, attached: readonly AttachedAdapter[], params: Params): Params {
  const merged = new Map(base);
  for (const adapter of attached) {
    for (const [name, value] of adapter.merge(merged, params)) merged.set(name, value);
  }
  return merged;
}
