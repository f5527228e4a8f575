import { add, layerNormalization, simplifiedLayerNormalization } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import type { Scope } from "./scope.ts";

/** `weight * x / sqrt(mean(x²) + epsilon)` over the last axis. */
export function rmsNorm(w: Scope, x: Value, epsilon: number): Value {
  return simplifiedLayerNormalization(x, w.get("weight"), epsilon);
}

/** `(1 + weight) * x / sqrt(mean(x²) + epsilon)` over the last axis, as in Gemma. */
export function offsetRmsNorm(w: Scope, x: Value, epsilon: number): Value {
  return simplifiedLayerNormalization(x, add(w.get("weight"), 1), epsilon);
}

/** `weight * (x - mean) / sqrt(variance + epsilon) + bias` over the last axis. */
export function layerNorm(w: Scope, x: Value, epsilon: number): Value {
  return layerNormalization(x, w.get("weight"), w.get("bias"), epsilon);
}
