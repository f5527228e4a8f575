import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import type { Adapter, AdapterParameter } from "./adapter.ts";
import { denseCopy, pick } from "./dense-subset.ts";
import { type LoraOptions, lora, loraModules } from "./lora.ts";

/**
 * Whole weights that a strategy trains as products, `y = (W + scaling * B A) x` with W at 0: they start as the base
 * weights themselves; where a strategy gives a client factors, of whatever width, these are added.
 */
export function factorized(options: LoraOptions): Adapter {
  return {
    name: "factorized",
    attach(base) {
      const modules = loraModules(base, options);
      const pairs = lora(options).attach(base);
      const parameters = new Map<string, AdapterParameter>();
      for (const { module } of modules)
        parameters.set(`${module}.weight`, denseCopy(base, `${module}.weight`));
      for (const [name, parameter] of pairs.parameters)
        if (!/\.lora_[AB]\.weight$/.test(name)) parameters.set(name, parameter);
      return {
        parameters,
        linear: new Map(modules.map(({ module, scaling }) => [module, product(scaling)])),
        merge: (_, params) => pick(params, [...parameters.keys()]),
      };
    },
  };
}

const product =
  (scaling: number): LinearAdapter =>
  (w, x, y) => {
    if (!w.has("lora_A.weight")) return y;
    const inner = matMul(x, w.get("lora_A.weight"), { transB: true }); // [..., q]
    return add(y, matMul(inner, w.get("lora_B.weight"), { transB: true, alpha: scaling }));
  };
