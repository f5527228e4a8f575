import { byteSize, type DType } from "../tensor/dtype.ts";
import { type Params, sortedNames } from "../tensor/params.ts";
import { sizeOf } from "../tensor/tensor.ts";

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

/** Bytes of the tensors of a plan. */
export function planBytes(plan: readonly PlanEntry[]): number {
  return plan.reduce((sum, { dtype, shape }) => sum + sizeOf(shape) * byteSize(dtype), 0);
}
