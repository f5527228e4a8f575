import { type ArrayOf, allocate, type DType } from "./dtype.ts";

/** A dense host array, row-major. Treated as immutable once it is shared. */
export interface Tensor<K extends DType = DType> {
  readonly dtype: K;
  readonly shape: readonly number[];
  readonly data: ArrayOf[K];
}

/** Number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const dim of shape) size *= dim;
  return size;
}

/** Wraps an array; throws RangeError if its length is not the product of the shape. */
export function tensor<K extends DType>(dtype: K, shape: readonly number[], data: ArrayOf[K]): Tensor<K> {
  if (data.length !== sizeOf(shape)) {
    throw new RangeError(`tensor: shape [${shape}] needs ${sizeOf(shape)} elements, got ${data.length}`);
  }
  return { dtype, shape, data };
}

/** A tensor of zeros. */
export function zeros<K extends DType>(dtype: K, shape: readonly number[]): Tensor<K> {
  return { dtype, shape, data: allocate(dtype, sizeOf(shape)) };
}

/** A float32 tensor from numbers. */
export function float32(shape: readonly number[], values: ArrayLike<number>): Tensor<"float32"> {
  return tensor("float32", shape, values instanceof Float32Array ? values : Float32Array.from(values));
}
