import type { DType } from "../tensor/dtype.ts";
import { type Params, sortedNames } from "../tensor/params.ts";

/** One tensor of a plan. */
export interface PlanEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Names, dtypes and shapes of some parameters, in order of name. */
export function planOf(params: Params): PlanEntry[] {
  return sortedNames(params).flatMap((name) => {
    const tensor = params.get(name);
    return tensor ? [{ name, dtype: tensor.dtype, shape: [...tensor.shape] }] : [];
  });
}
