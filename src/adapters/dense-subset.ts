import type { Params } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Adapter, AdapterBase, AdapterParameter } from "./adapter.ts";
import { matches } from "./target.ts";

export interface DenseSubsetOptions {
  /**
   * Which base tensors are trained: "all", a list of suffixes of tensor or module names, or a regular expression that
   * matches whole tensor names.
   */
  readonly target: "all" | readonly string[] | string;
}

/** Full or partial fine-tuning: base tensors themselves are trained. */
export function denseSubset({ target }: DenseSubsetOptions): Adapter {
  return {
    name: "dense",
    attach(base) {
      const names = [...base.parameters.keys()].filter((name) => chosen(name, target));
      if (names.length === 0) {
        throw new RangeError(
          `dense: target ${JSON.stringify(target)} matches none of ${base.parameters.size} tensors`,
        );
      }
      return {
        parameters: new Map(names.map((name) => [name, denseCopy(base, name)])),
        linear: new Map(),
        merge: (_, params) => pick(params, names),
      };
    },
  };
}

function chosen(name: string, target: DenseSubsetOptions["target"]): boolean {
  if (target === "all") return true;
  return matches(name, target) || (typeof target !== "string" && matches(moduleOf(name), target));
}

/** The module of a tensor's name. */
export const moduleOf = (name: string): string => name.replace(/\.(weight|bias)$/, "");

/** The module of a tensor and those that it lies in. */
export function modulesAbove(name: string): string[] {
  const steps = moduleOf(name).split(".");
  return steps.map((_, i) => steps.slice(0, i + 1).join("."));
}

/** A trainable parameter that starts as the base tensor of its name, or of the name that it is tied to. */
export function denseCopy({ parameters, tied }: AdapterBase, name: string): AdapterParameter {
  const stored = parameters.has(name) ? name : (tied.get(name) ?? name);
  const spec = parameters.get(stored);
  if (!spec) throw new RangeError(`dense: the model has no tensor "${name}"`);
  return {
    shape: spec.shape,
    trainable: true,
    start({ base }) {
      const value = base.get(stored);
      if (!value) throw new RangeError(`dense: the base weights hold no tensor "${stored}"`);
      return value;
    },
  };
}

/** The named parameters. Throws RangeError where one is missing. */
export function pick(params: Params, names: readonly string[]): Map<string, Tensor> {
  return new Map(
    names.map((name) => {
      const value = params.get(name);
      if (!value) throw new RangeError(`adapter: there is no parameter "${name}" among ${params.size}`);
      return [name, value];
    }),
  );
}
