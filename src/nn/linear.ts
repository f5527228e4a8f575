import { flattenRows, gemm, matMul, reshape } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import type { Scope } from "./scope.ts";

/** `y = x Wᵀ + b` for x [..., in] and W [out, in], then what each attached adapter adds. */
export function linear(w: Scope, x: Value): Value {
  const weight = w.get("weight");
  let y = w.has("bias")
    ? reshape(gemm(flattenRows(x), weight, w.get("bias")), [...x.shape.slice(0, -1), dimAt(weight.shape, 0)])
    : matMul(x, weight, { transB: true });
  for (const adapter of w.adapters) y = adapter(w, x, y);
  return y; // [..., out]
}
