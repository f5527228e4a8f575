import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import { zeros } from "../tensor/tensor.ts";
import type { Adapter, AdapterParameter } from "./adapter.ts";
import { type LoraOptions, lora, loraModules, loraNames } from "./lora.ts";
import { addLowRank } from "./merge.ts";

export interface PrivatePairOptions extends Omit<LoraOptions, "modulesToSave"> {
  /** Factor of the private product. Default: that of the shared pair, alpha / rank. */
  readonly privateScaling?: number;
}

/** Names of the private factors of a module: U [rank, in] and L [out, rank]. */
export const privateNames = (module: string): { readonly privateA: string; readonly privateB: string } => ({
  privateA: `${module}.private_A.weight`,
  privateB: `${module}.private_B.weight`,
});

/**
 * A second low-rank pair beside LoRA's, for what a client keeps to itself: `y = W x + … + privateScaling * L U x`. It is
 * attached beside `lora` and starts as LoRA does, from streams of its own.
 *
 * Park and Klabjan, 2024, section 4.2. https://arxiv.org/abs/2409.12371
 */
export function privatePair(options: PrivatePairOptions): Adapter {
  return {
    name: "private-pair",
    attach(base) {
      const pairs = lora(options).attach(base);
      const modules = loraModules(base, options).map((one) => ({
        ...one,
        scaling: options.privateScaling ?? one.scaling,
      }));
      const parameters = new Map<string, AdapterParameter>();
      for (const { module, rank, shape } of modules) {
        const { privateA, privateB } = privateNames(module);
        const a = pairs.parameters.get(loraNames(module).loraA);
        if (!a) throw new RangeError(`private-pair: "${module}" has no factor A`);
        parameters.set(privateA, {
          ...a,
          start: ({ seed, base: weights }) => a.start({ seed: seed + 1, base: weights }),
        });
        parameters.set(privateB, {
          shape: [shape[0], rank],
          trainable: true,
          start: () => zeros("float32", [shape[0], rank]),
        });
      }
      return {
        parameters,
        linear: new Map(modules.map(({ module, scaling }) => [module, addition(scaling)])),
        merge: (weights, params) =>
          new Map(
            modules.map(({ module, scaling }) => {
              const { privateA, privateB } = privateNames(module);
              const name = `${module}.weight`;
              const [weight, right, left] = [weights.get(name), params.get(privateA), params.get(privateB)];
              if (!weight || !left || !right)
                throw new RangeError(
                  `private-pair: merging "${module}" needs ${name}, ${privateA} and ${privateB}`,
                );
              return [name, addLowRank(weight, { left, right, scale: scaling })] as const;
            }),
          ),
      };
    },
  };
}

const addition =
  (scaling: number): LinearAdapter =>
  (w, x, y) => {
    const inner = matMul(x, w.get("private_A.weight"), { transB: true }); // [..., rank]
    return add(y, matMul(inner, w.get("private_B.weight"), { transB: true, alpha: scaling }));
  };
