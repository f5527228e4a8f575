import { add, div, matMul, mul, reduceSum, sqrt, stopGradient, sub } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import { float32, type Tensor } from "../tensor/tensor.ts";
import type { Adapter, AdapterBase, AdapterParameter } from "./adapter.ts";
import { type LoraModule, type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";

export type DoraOptions = LoraOptions;

/** Name of a module's magnitude in files, [out]. */
export const doraName = (module: string): string => `${module}.lora_magnitude_vector`;

/**
 * DoRA: `W' = diag(m / ‖W + s B A‖) (W + s B A)`, with the norm of each row; m is trained beside A and B and starts as the
 * row norms of W. The norm is a constant of the backward pass, as in section 4.3.
 *
 * Liu et al., ICML 2024, equation 5. https://arxiv.org/abs/2402.09353
 */
export function dora(options: DoraOptions): Adapter {
  return {
    name: "dora",
    attach(base) {
      const pairs = lora(options).attach(base);
      const modules = loraModules(base, options);
      const parameters = new Map(pairs.parameters);
      for (const { module, shape } of modules) parameters.set(doraName(module), magnitude(module, shape[0]));
      return {
        parameters,
        linear: new Map(modules.map(({ module, scaling }) => [module, doraLinear(scaling)])),
        merge(weights, params) {
          const merged = new Map(pairs.merge(weights, params));
          for (const one of modules) merged.set(...rescaled(base, merged, params, one));
          return merged;
        },
      };
    },
  };
}

/** The layer of a module: `y + (m/‖V‖ − 1) W x + m/‖V‖ s B A x` with V = W + s B A; the bias of y is left alone. */
export function doraLinear(scaling: number): LinearAdapter {
  return (w, x, y) => {
    const [a, b] = [w.get("lora_A.weight"), w.get("lora_B.weight")];
    const weight = w.get("weight");
    const v = add(weight, matMul(b, a, { alpha: scaling })); // V, [out, in]
    const norm = stopGradient(sqrt(reduceSum(mul(v, v), { axes: [1] }))); // [out]
    const factor = div(w.get("lora_magnitude_vector"), norm); // m / ‖V‖
    const low = matMul(matMul(x, a, { transB: true }), b, { transB: true, alpha: scaling });
    const frozen = matMul(x, weight, { transB: true });
    return add(y, add(mul(frozen, sub(factor, 1)), mul(low, factor)));
  };
}

/** m starts as the norm of each row of W, so that W' = W. */
function magnitude(module: string, out: number): AdapterParameter {
  return {
    shape: [out],
    trainable: true,
    start({ base }) {
      const weight = base.get(`${module}.weight`);
      if (!weight)
        throw new RangeError(`dora: the base holds no ${module}.weight whose rows the magnitudes are`);
      return float32([out], rowNorms(weight));
    },
  };
}

function rowNorms(weight: Tensor): Float64Array {
  const [out = 0, from = 0] = weight.shape;
  const { data } = widen(weight);
  return Float64Array.from({ length: out }, (_, i) => {
    let sum = 0;
    for (let j = i * from; j < (i + 1) * from; j++) sum += data[j]! * data[j]!;
    return Math.sqrt(sum);
  });
}

/** V with the rows brought to the length m. */
function rescaled(
  { tied }: AdapterBase,
  merged: Params,
  params: Params,
  { module, shape: [, from] }: LoraModule,
): [string, Tensor] {
  const name = `${module}.weight`;
  const v = merged.get(tied.get(name) ?? name);
  const m = params.get(doraName(module));
  if (!v || !m) {
    const { loraA, loraB } = loraNames(module);
    throw new RangeError(
      `dora: merging "${module}" needs ${name}, ${loraA}, ${loraB} and ${doraName(module)}`,
    );
  }
  const norms = rowNorms(v);
  const { data } = widen(v);
  const values = Float32Array.from(data, (x, k) => {
    const i = Math.floor(k / from);
    return (Number(m.data[i]) / (norms[i] ?? Number.NaN)) * x;
  });
  return [name, float32(v.shape, values)];
}
