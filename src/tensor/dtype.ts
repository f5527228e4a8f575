/**
 * Element types. The storage types (float16, bfloat16, float8) are held as raw bits in unsigned arrays
 * and are widened before arithmetic.
 */
export type DType = (typeof dtypes)[number];

/** The element types by name. */
export const dtypes = [
  "float32",
  "float64",
  "float16",
  "bfloat16",
  "float8e4m3",
  "float8e5m2",
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "bool",
] as const;

/** The typed array that holds a dtype on the host. */
export interface ArrayOf {
  float32: Float32Array;
  float64: Float64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float8e4m3: Uint8Array;
  float8e5m2: Uint8Array;
  int8: Int8Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  uint8: Uint8Array;
  uint16: Uint16Array;
  uint32: Uint32Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
}

export type HostArray = ArrayOf[DType];

const constructors: {
  readonly [K in DType]: {
    new (length: number): ArrayOf[K];
    new (buffer: ArrayBuffer, start?: number, length?: number): ArrayOf[K];
    readonly BYTES_PER_ELEMENT: number;
  };
} = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float8e4m3: Uint8Array,
  float8e5m2: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** Bytes of one element. */
export function byteSize(dtype: DType): number {
  return constructors[dtype].BYTES_PER_ELEMENT;
}

/** A host array over a buffer, or over `length` elements of it from byte `start`, a multiple of their size. */
export function arrayOver<K extends DType>(
  dtype: K,
  buffer: ArrayBuffer,
  start?: number,
  length?: number,
): ArrayOf[K] {
  return new constructors[dtype](buffer, start, length);
}

/** A zero-filled host array. */
export function allocate<K extends DType>(dtype: K, length: number): ArrayOf[K] {
  return new constructors[dtype](length);
}
