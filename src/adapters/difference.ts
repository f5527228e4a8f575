import { add, matMul } from "../graph/ops.ts";
import type { LinearAdapter } from "../nn/scope.ts";
import type { Adapter } from "./adapter.ts";
import { type LoraOptions, loraModules } from "./lora.ts";

export type DifferenceOptions = Pick<LoraOptions, "target" | "exclude" | "modulesToSave">;

/** Name of the dense difference of a module's weight: D [out, in]. */
export const differenceName = (module: string): string => `${module}.difference.weight`;

/** A dense difference beside the frozen weight, `y = (W + D) x`, wherever a strategy starts one; else nothing. */
export function difference(options: DifferenceOptions): Adapter {
  return {
    name: "difference",
    attach(base) {
      const modules = loraModules(base, { ...options, rank: 1, alpha: 1 });
      return {
        parameters: new Map(),
        linear: new Map(modules.map(({ module }) => [module, addition])),
        merge: () => new Map(),
      };
    },
  };
}

const addition: LinearAdapter = (w, x, y) =>
  w.has("difference.weight") ? add(y, matMul(x, w.get("difference.weight"), { transB: true })) : y;
