import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Adapter } from "./adapter.ts";
import { type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";
import { addLowRank } from "./merge.ts";

export interface NestedLoraOptions extends Omit<LoraOptions, "rankPattern" | "alphaPattern"> {
  /** Factors α_A and α_B of the inner products. Default: 1. */
  readonly alphaA?: number;
  readonly alphaB?: number;
}

/** Names of the inner factors of a module: B_d [out, q], B_u [q, rank], A_d [rank, q] and A_u [q, in]. */
export const innerNames = (module: string): { readonly [part in "Bd" | "Bu" | "Ad" | "Au"]: string } => ({
  Bd: `${module}.lora_Bd.weight`,
  Bu: `${module}.lora_Bu.weight`,
  Ad: `${module}.lora_Ad.weight`,
  Au: `${module}.lora_Au.weight`,
});

/**
 * Nested LoRA: low-rank changes of the two factors, `y = W x + scaling * (B + α_B B_d B_u)(A + α_A A_d A_u) x`, wherever a
 * strategy starts them, of whatever rank; else LoRA.
 *
 * Park and Klabjan, 2024, section 4.3. https://arxiv.org/abs/2409.12371
 */
export function nestedLora({ alphaA = 1, alphaB = 1, ...options }: NestedLoraOptions): Adapter {
  return {
    name: "nested-lora",
    attach(base) {
      const pairs = lora(options).attach(base);
      const modules = loraModules(base, options);
      return {
        parameters: pairs.parameters,
        linear: new Map(modules.map(({ module, scaling }) => [module, nested(scaling, alphaA, alphaB)])),
        merge: (weights, params) =>
          pairs.merge(
            weights,
            modules.reduce((folded, { module }) => withInner(folded, module, alphaA, alphaB), params),
          ),
      };
    },
  };
}

const nested =
  (scaling: number, alphaA: number, alphaB: number): LinearAdapter =>
  (w, x, y) => {
    const times = (value: typeof x, factor: string, alpha = 1) =>
      matMul(value, w.get(`lora_${factor}.weight`), { transB: true, alpha });
    if (!w.has("lora_Bd.weight")) return add(y, times(times(x, "A"), "B", scaling));
    const inner = add(times(x, "A"), times(times(x, "Au"), "Ad", alphaA)); // [..., rank]
    return add(y, add(times(inner, "B", scaling), times(times(inner, "Bu"), "Bd", scaling * alphaB)));
  };

/** B + α_B B_d B_u and A + α_A A_d A_u in the place of B and A. */
function withInner(params: Params, module: string, alphaA: number, alphaB: number): Params {
  const { loraA, loraB } = loraNames(module);
  const { Bd, Bu, Ad, Au } = innerNames(module);
  if (!params.has(Bd)) return params;
  const changed = (outer: string, down: string, up: string, alpha: number): [string, Tensor] => {
    const [weight, left, right] = [params.get(outer), params.get(down), params.get(up)];
    if (!weight || !left || !right)
      throw new RangeError(`nested-lora: merging needs ${outer}, ${down} and ${up}`);
    return [outer, addLowRank(weight, { left, right, scale: alpha })];
  };
  return new Map([...params, changed(loraA, Ad, Au, alphaA), changed(loraB, Bd, Bu, alphaB)]);
}
