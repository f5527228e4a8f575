import { mul } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { linear } from "./linear.ts";
import type { Scope } from "./scope.ts";

/** `down(activation(gate x) * up x)`, as in Llama. Shazeer, 2020. https://arxiv.org/abs/2002.05202 */
export function gatedMlp(w: Scope, x: Value, activation: (x: Value) => Value): Value {
  const gate = activation(linear(w.at("gate_proj"), x));
  return linear(w.at("down_proj"), mul(gate, linear(w.at("up_proj"), x)));
}
