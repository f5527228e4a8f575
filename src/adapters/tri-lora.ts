import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import { type Matrix, matmul, matrixOf, tensorOf } from "../tensor/matrix.ts";
import type { Params } from "../tensor/params.ts";
import { stream } from "../tensor/random.ts";
import { float32, type Tensor } from "../tensor/tensor.ts";
import type { Adapter, AdapterParameter } from "./adapter.ts";
import { type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";

export type TriLoraOptions = Omit<LoraOptions, "init" | "rankPattern" | "alphaPattern">;

/** Name of the core of a module in files: C [rank, rank]. */
export const coreName = (module: string): string => `${module}.lora_C.weight`;

/** Deviation of A at the start, with C = I and B = 0. */
const START_DEVIATION = 1e-3;

/**
 * Tri-matrix LoRA: `y = W x + scaling * B C A x`, whose core C [rank, rank] is all that travels in CE-LoRA.
 *
 * Li et al., 2025, section III. https://arxiv.org/abs/2503.23869
 */
export function triLora(options: TriLoraOptions): Adapter {
  return {
    name: "tri-lora",
    attach(base) {
      const pairs = lora(options).attach(base);
      const modules = loraModules(base, options);
      const cores = new Map(modules.map((one) => [loraNames(one.module).loraA, one] as const));
      const parameters = new Map<string, AdapterParameter>();
      for (const [name, parameter] of pairs.parameters) {
        const one = cores.get(name);
        if (one === undefined) {
          parameters.set(name, parameter);
          continue;
        }
        const { module, rank } = one;
        parameters.set(name, { ...parameter, start: ({ seed }) => startA(name, parameter.shape, seed) });
        parameters.set(coreName(module), {
          shape: [rank, rank],
          trainable: true,
          start: () => identity(rank),
        });
      }
      return {
        parameters,
        linear: new Map(modules.map(({ module, scaling }) => [module, triLinear(scaling)])),
        merge: (weights, params) =>
          pairs.merge(
            weights,
            modules.reduce((folded, { module }) => withCore(folded, module), params),
          ),
      };
    },
  };
}

/** The layer of a module. */
export function triLinear(scaling: number): LinearAdapter {
  return (w, x, y) => {
    const inner = matMul(x, w.get("lora_A.weight"), { transB: true }); // [..., rank]
    const core = matMul(inner, w.get("lora_C.weight"), { transB: true });
    return add(y, matMul(core, w.get("lora_B.weight"), { transB: true, alpha: scaling }));
  };
}

/** C A in the place of A. */
function withCore(params: Params, module: string): Params {
  const { loraA } = loraNames(module);
  const [a, c] = [params.get(loraA), params.get(coreName(module))];
  if (!a || !c) throw new RangeError(`tri-lora: "${module}" needs ${loraA} and ${coreName(module)}`);
  const product: Matrix = matmul(matrixOf(c), matrixOf(a));
  return new Map([...params, [loraA, tensorOf(product)] as const]);
}

function startA(name: string, shape: readonly number[], seed: number): Tensor {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed, purpose: `init/${name}` }).fillNormal(values, 0, START_DEVIATION);
  return float32(shape, values);
}

function identity(rank: number): Tensor {
  const values = new Float32Array(rank * rank);
  for (let i = 0; i < rank; i++) values[i * rank + i] = 1;
  return float32([rank, rank], values);
}
