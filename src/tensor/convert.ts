import { allocate, type DType, type HostArray } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

/** A float format of at most 16 bits, in the order sign, exponent, mantissa. */
interface SmallFloat {
  readonly mantissaBits: number;
  readonly bias: number;
  readonly signBit: number;
  /** The pattern that a finite magnitude beyond the range becomes. */
  readonly overflow: number;
  /** The pattern of infinity; that of NaN where the format has no infinity. */
  readonly infinity: number;
  readonly nan: number;
}

type StorageFloat = "float16" | "bfloat16" | "float8e4m3" | "float8e5m2";

const formats: { readonly [K in StorageFloat]: SmallFloat } = {
  float16: { mantissaBits: 10, bias: 15, signBit: 0x8000, overflow: 0x7c00, infinity: 0x7c00, nan: 0x7e00 },
  bfloat16: { mantissaBits: 7, bias: 127, signBit: 0x8000, overflow: 0x7f80, infinity: 0x7f80, nan: 0x7fc0 },
  // The OCP format e4m3fn: no infinities, the one NaN is S.1111.111. Overflow saturates at 448, as in PyTorch.
  float8e4m3: { mantissaBits: 3, bias: 7, signBit: 0x80, overflow: 0x7e, infinity: 0x7f, nan: 0x7f },
  float8e5m2: { mantissaBits: 2, bias: 15, signBit: 0x80, overflow: 0x7c, infinity: 0x7c, nan: 0x7e },
};

/** A tensor as float32: storage floats exactly, the rest rounded to nearest. A float32 tensor is returned as it is. */
export function widen(tensor: Tensor): Tensor<"float32"> {
  return convert(tensor, "float32");
}

/**
 * A tensor with another element type. Floats round once, to nearest even; what exceeds the range becomes an infinity.
 * float8e4m3 has none: there finite values saturate at 448 and infinities become NaN. Throws RangeError where an integer
 * type cannot hold a value exactly.
 */
export function convert<K extends DType>(tensor: Tensor, dtype: K): Tensor<K> {
  if (hasDtype(tensor, dtype)) return tensor;
  if (isStorageFloat(tensor.dtype)) {
    const wide: Tensor = {
      dtype: "float32",
      shape: tensor.shape,
      data: widenBits(tensor.data, tensor.dtype),
    };
    return convert(wide, dtype);
  }
  const data = allocate(dtype, tensor.data.length);
  write(data, dtype, tensor.data);
  return { dtype, shape: tensor.shape, data };
}

/** Narrows the type of a tensor to one dtype. */
export function hasDtype<K extends DType>(tensor: Tensor, dtype: K): tensor is Tensor<K> {
  return tensor.dtype === dtype;
}

function isStorageFloat(dtype: DType): dtype is StorageFloat {
  return Object.hasOwn(formats, dtype);
}

function write(target: HostArray, dtype: DType, values: HostArray): void {
  if (target instanceof BigInt64Array || target instanceof BigUint64Array) {
    for (let i = 0; i < target.length; i++) {
      const value = values[i]!;
      const integer = Number.isInteger(Number(value)) ? BigInt(value) : undefined;
      if (integer !== undefined) target[i] = integer;
      if (integer === undefined || target[i] !== integer) throw inexact(value, i, dtype);
    }
  } else if (isStorageFloat(dtype) && (target instanceof Uint16Array || target instanceof Uint8Array)) {
    const floats = values instanceof Float32Array ? values : Float64Array.from(Array.from(values, Number));
    narrowInto(target, floats, formats[dtype]);
  } else if (target instanceof Float32Array || target instanceof Float64Array) {
    for (let i = 0; i < target.length; i++) target[i] = Number(values[i]);
  } else {
    const limit = dtype === "bool" ? 1 : Number.POSITIVE_INFINITY;
    for (let i = 0; i < target.length; i++) {
      const value = Number(values[i]);
      target[i] = value;
      if (target[i] !== value || value > limit) throw inexact(values[i]!, i, dtype);
    }
  }
}

function inexact(value: number | bigint, index: number, dtype: DType): RangeError {
  return new RangeError(`convert: element ${index} is ${value}, which ${dtype} cannot hold`);
}

/** Rounds to a small format: |v| = q 2^(e - m) with integer q in [2^m, 2^(m+1)], or q below 2^m at the smallest e. */
function narrowInto(
  target: Uint16Array | Uint8Array,
  values: Float32Array | Float64Array,
  { mantissaBits, bias, signBit, overflow, infinity, nan }: SmallFloat,
): void {
  const float = new Float64Array(1);
  const words = new Uint32Array(float.buffer);
  const high = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 1 : 0; // the word with sign and exponent
  const smallest = 1 - bias;
  const one = 2 ** mantissaBits;
  const unitsAt = Float64Array.from({ length: 2 * bias + 1 }, (_, k) => 2 ** (mantissaBits - smallest - k));
  for (let i = 0; i < target.length; i++) {
    const value = values[i]!;
    float[0] = value;
    const top = words[high]!;
    const sign = top >>> 31 === 1 ? signBit : 0;
    const own = ((top >>> 20) & 0x7ff) - 1023;
    const exponent = Math.max(own, smallest);
    if (exponent > bias + 1) {
      target[i] = sign | (own < 1024 ? overflow : Number.isNaN(value) ? nan : infinity);
      continue;
    }
    const units = (value < 0 ? -value : value) * unitsAt[exponent - smallest]!;
    const rounded = units + 1.5 * 2 ** 52 - 1.5 * 2 ** 52; // to nearest, ties to even
    // A carry out of the mantissa walks into the exponent by itself.
    const magnitude = (exponent + bias) * one + rounded - one;
    target[i] = sign | (magnitude < overflow ? magnitude : overflow);
  }
}

/** Widens storage bits to float32, through a table of the magnitudes that float32 spells with shifted bits. */
function widenBits(bits: HostArray, dtype: StorageFloat): Float32Array {
  const out = new Float32Array(bits.length);
  const words = new Uint32Array(out.buffer);
  if (dtype === "bfloat16" && bits instanceof Uint16Array) {
    for (let i = 0; i < words.length; i++) words[i] = bits[i]! << 16;
  } else if (dtype === "float16" && bits instanceof Uint16Array) {
    const { offset, mantissa, exponent } = halfTables;
    for (let i = 0; i < words.length; i++) {
      const half = bits[i]!;
      words[i] = mantissa[offset[half >>> 10]! + (half & 0x3ff)]! + exponent[half >>> 10]!;
    }
  } else {
    const table = Float32Array.from({ length: 256 }, (_, pattern) => decode(pattern, formats[dtype]));
    for (let i = 0; i < out.length; i++) out[i] = table[Number(bits[i])]!;
  }
  return out;
}

function decode(pattern: number, { mantissaBits, bias, signBit, infinity, nan }: SmallFloat): number {
  const magnitude = pattern & (signBit - 1);
  const sign = pattern & signBit ? -1 : 1;
  if (magnitude >= infinity) {
    return magnitude === infinity && infinity !== nan ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  }
  const exponent = magnitude >>> mantissaBits;
  const fraction = magnitude & (2 ** mantissaBits - 1);
  const units = exponent === 0 ? fraction : fraction + 2 ** mantissaBits;
  return sign * units * 2 ** (Math.max(exponent, 1) - bias - mantissaBits);
}

/**
 * float16 to float32 by sign and exponent (6 bits) and mantissa (10 bits); subnormals have their own half of the mantissa
 * table, since float32 holds them normalized. Van der Zijp, "Fast Half Float Conversions", 2008.
 */
const halfTables = makeHalfTables();

function makeHalfTables(): { offset: Uint16Array; mantissa: Uint32Array; exponent: Uint32Array } {
  const offset = new Uint16Array(64).fill(1024);
  const mantissa = new Uint32Array(2048);
  const exponent = new Uint32Array(64);
  const subnormals = Float32Array.from({ length: 1024 }, (_, fraction) => fraction * 2 ** -24);
  mantissa.set(new Uint32Array(subnormals.buffer));
  for (let fraction = 0; fraction < 1024; fraction++) mantissa[1024 + fraction] = fraction << 13;
  for (let biased = 0; biased < 32; biased++) {
    const bits = biased === 0 ? 0 : biased === 31 ? 0x7f800000 : (biased + 112) << 23;
    exponent[biased] = bits;
    exponent[32 + biased] = bits + 0x80000000;
  }
  offset[0] = 0;
  offset[32] = 0;
  return { offset, mantissa, exponent };
}
