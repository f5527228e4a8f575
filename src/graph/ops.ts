import { convert } from "../tensor/convert.ts";
import type { DType } from "../tensor/dtype.ts";
import { float32, tensor } from "../tensor/tensor.ts";
import {
  broadcastShapes,
  type Dim,
  dimAt,
  elements,
  normalizeAxis,
  type Shape,
  sameShape,
  timesDim,
} from "./shape.ts";
import { applyOp, constant, type Value } from "./value.ts";

/** A number where a tensor is expected takes the tensor's dtype. */
export type Operand = Value | number;

type Elementwise =
  | "Neg"
  | "Exp"
  | "Log"
  | "Sqrt"
  | "Reciprocal"
  | "Tanh"
  | "Sigmoid"
  | "Erf"
  | "Abs"
  | "Sign"
  | "Identity"
  | "Relu"
  | "Sin"
  | "Cos";
type Arithmetic = "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max";
type Comparison = "Equal" | "Less" | "LessOrEqual";

function one(values: readonly Value[]): Value {
  const [value] = values;
  if (value === undefined) throw new Error("graph: an op without outputs");
  return value;
}

/** A scalar constant of a dtype. */
export function scalar(value: number, dtype: DType = "float32"): Value {
  return constant(convert(tensor("float64", [], Float64Array.of(value)), dtype));
}

function pair(a: Operand, b: Operand, who: string): [Value, Value] {
  if (typeof a === "number") {
    if (typeof b === "number") throw new TypeError(`${who}: needs at least one tensor, got two numbers`);
    return [scalar(a, b.dtype), b];
  }
  const right = typeof b === "number" ? scalar(b, a.dtype) : b;
  if (a.dtype !== right.dtype)
    throw new TypeError(`${who}: dtypes differ, got ${a.dtype} and ${right.dtype}`);
  return [a, right];
}

function arithmetic(op: Arithmetic, a: Operand, b: Operand): Value {
  const [x, y] = pair(a, b, op);
  return one(applyOp(op, {}, [x, y], [{ dtype: x.dtype, shape: broadcastShapes(x.shape, y.shape, op) }]));
}

function comparison(op: Comparison, a: Operand, b: Operand): Value {
  const [x, y] = pair(a, b, op);
  return one(applyOp(op, {}, [x, y], [{ dtype: "bool", shape: broadcastShapes(x.shape, y.shape, op) }]));
}

function elementwise(op: Elementwise, x: Value): Value {
  return one(applyOp(op, {}, [x], [x]));
}

export const add = (a: Operand, b: Operand): Value => arithmetic("Add", a, b);
export const sub = (a: Operand, b: Operand): Value => arithmetic("Sub", a, b);
export const mul = (a: Operand, b: Operand): Value => arithmetic("Mul", a, b);
export const div = (a: Operand, b: Operand): Value => arithmetic("Div", a, b);
export const pow = (a: Operand, b: Operand): Value => arithmetic("Pow", a, b);
export const min = (a: Operand, b: Operand): Value => arithmetic("Min", a, b);
export const max = (a: Operand, b: Operand): Value => arithmetic("Max", a, b);
export const equal = (a: Operand, b: Operand): Value => comparison("Equal", a, b);
export const less = (a: Operand, b: Operand): Value => comparison("Less", a, b);
export const lessOrEqual = (a: Operand, b: Operand): Value => comparison("LessOrEqual", a, b);
export const neg = (x: Value): Value => elementwise("Neg", x);
export const exp = (x: Value): Value => elementwise("Exp", x);
export const log = (x: Value): Value => elementwise("Log", x);
export const sqrt = (x: Value): Value => elementwise("Sqrt", x);
export const reciprocal = (x: Value): Value => elementwise("Reciprocal", x);
export const tanh = (x: Value): Value => elementwise("Tanh", x);
export const sigmoid = (x: Value): Value => elementwise("Sigmoid", x);
export const erf = (x: Value): Value => elementwise("Erf", x);
export const abs = (x: Value): Value => elementwise("Abs", x);
export const sign = (x: Value): Value => elementwise("Sign", x);
/** `x`, taken as a constant: no gradient passes. */
export const stopGradient = (x: Value): Value => elementwise("Identity", x);
export const relu = (x: Value): Value => elementwise("Relu", x);
export const sin = (x: Value): Value => elementwise("Sin", x);
export const cos = (x: Value): Value => elementwise("Cos", x);

/** `x * Φ(x)`, exact ("none") or by tanh. */
export function gelu(x: Value, approximate: "none" | "tanh" = "none"): Value {
  return one(applyOp("Gelu", { approximate }, [x], [x]));
}

/** `x * sigmoid(alpha * x)`; alpha 1 is SiLU. */
export function quickGelu(x: Value, alpha: number): Value {
  return one(applyOp("QuickGelu", { alpha }, [x], [x]));
}

/** `x * sigmoid(x)`. */
export const silu = (x: Value): Value => quickGelu(x, 1);

export function and(a: Value, b: Value): Value {
  return one(
    applyOp("And", {}, [a, b], [{ dtype: "bool", shape: broadcastShapes(a.shape, b.shape, "And") }]),
  );
}

export function not(x: Value): Value {
  return one(applyOp("Not", {}, [x], [x]));
}

export function where(condition: Value, a: Operand, b: Operand): Value {
  const [x, y] =
    typeof a === "number" && typeof b === "number" ? [scalar(a), scalar(b)] : pair(a, b, "Where");
  const shape = broadcastShapes(condition.shape, broadcastShapes(x.shape, y.shape, "Where"), "Where");
  return one(applyOp("Where", {}, [condition, x, y], [{ dtype: x.dtype, shape }]));
}

export function cast(x: Value, to: DType): Value {
  return x.dtype === to ? x : one(applyOp("Cast", { to }, [x], [{ dtype: to, shape: x.shape }]));
}

export interface MatMulOptions {
  readonly transA?: boolean;
  readonly transB?: boolean;
  /** Factor of the product. */
  readonly alpha?: number;
}

/** Batched matrix product `alpha * op(a) op(b)` over the last two axes; a 2-D `b` is shared by all batches of `a`. */
export function matMul(
  a: Value,
  b: Value,
  { transA = false, transB = false, alpha = 1 }: MatMulOptions = {},
): Value {
  if (a.dtype !== b.dtype) throw new TypeError(`MatMul: dtypes differ, got ${a.dtype} and ${b.dtype}`);
  const rows = dimAt(a.shape, transA ? -1 : -2);
  const inner = dimAt(a.shape, transA ? -2 : -1);
  const innerB = dimAt(b.shape, transB ? -1 : -2);
  const columns = dimAt(b.shape, transB ? -2 : -1);
  if (inner !== innerB) {
    throw new RangeError(
      `MatMul: inner dimensions differ: [${a.shape}]${transA ? "ᵀ" : ""} x [${b.shape}]${transB ? "ᵀ" : ""}`,
    );
  }
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), "MatMul");
  return one(
    applyOp(
      "MatMul",
      { transA, transB, alpha },
      [a, b],
      [{ dtype: a.dtype, shape: [...batch, rows, columns] }],
    ),
  );
}

/** `x wᵀ + bias` for x [N, in], w [out, in], bias [out]. */
export function gemm(x: Value, w: Value, bias: Value): Value {
  const [n, k] = [dimAt(x.shape, 0), dimAt(x.shape, 1)];
  const out = dimAt(w.shape, 0);
  if (x.shape.length !== 2 || dimAt(w.shape, 1) !== k || !sameShape(bias.shape, [out])) {
    throw new RangeError(
      `Gemm: got x [${x.shape}], w [${w.shape}], bias [${bias.shape}]; expected [N, in], [out, in], [out]`,
    );
  }
  return one(applyOp("Gemm", {}, [x, w, bias], [{ dtype: x.dtype, shape: [n, out] }]));
}

/** Softmax over the last axis. */
export function softmax(x: Value): Value {
  return one(applyOp("Softmax", {}, [x], [x]));
}

/** Logarithm of the softmax over the last axis. */
export function logSoftmax(x: Value): Value {
  return one(applyOp("LogSoftmax", {}, [x], [x]));
}

const lastOne = (shape: Shape): Dim[] => [...shape.slice(0, -1), 1];

/** Normalizes the last axis to mean 0 and variance 1, then `* weight + bias`. */
export function layerNormalization(x: Value, weight: Value, bias: Value, epsilon: number): Value {
  const statistic = { dtype: x.dtype, shape: lastOne(x.shape) };
  return one(applyOp("LayerNormalization", { epsilon }, [x, weight, bias], [x, statistic, statistic]));
}

/** RMS norm: divides the last axis by its root mean square, then `* weight`. */
export function simplifiedLayerNormalization(x: Value, weight: Value, epsilon: number): Value {
  return one(applyOp("SimplifiedLayerNormalization", { epsilon }, [x, weight], [x]));
}

/**
 * Rotary position embedding in the half-split form: pairs (i, i + d/2) of each head turn by position * frequency.
 * x [B, H, T, d], positions [B, T] int64 or [1] (offset), cos and sin [positions, d/2].
 */
export function rotaryEmbedding(x: Value, positions: Value, cosine: Value, sine: Value): Value {
  return one(applyOp("RotaryEmbedding", {}, [x, positions, cosine, sine], [x]));
}

/** Reshapes; one symbolic dimension may be left to be inferred by writing it out (`timesDim`). */
export function reshape(x: Value, shape: Shape): Value {
  if (elements(shape) !== elements(x.shape)) {
    throw new RangeError(
      `Reshape: [${x.shape}] has ${elements(x.shape)} elements, [${shape}] has ${elements(shape)}`,
    );
  }
  return sameShape(shape, x.shape) ? x : one(applyOp("Reshape", { shape }, [x], [{ dtype: x.dtype, shape }]));
}

/** All axes but the last merged into one. */
export function flattenRows(x: Value): Value {
  return reshape(x, [timesDim(...x.shape.slice(0, -1)), dimAt(x.shape, -1)]);
}

export function transpose(x: Value, perm: readonly number[]): Value {
  if (perm.every((axis, i) => axis === i)) return x;
  return one(
    applyOp(
      "Transpose",
      { perm },
      [x],
      [{ dtype: x.dtype, shape: perm.map((axis) => dimAt(x.shape, axis)) }],
    ),
  );
}

/** Elements `start..end` of one axis of known length. */
export function slice(x: Value, axis: number, start: number, end: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "Slice");
  const length = dimAt(x.shape, at);
  if (start < 0 || end < start || (typeof length === "number" && end > length)) {
    throw new RangeError(`Slice: ${start}..${end} is outside axis ${at} of [${x.shape}]`);
  }
  const shape = x.shape.map((dim, i) => (i === at ? end - start : dim));
  return one(applyOp("Slice", { axis: at, start, end }, [x], [{ dtype: x.dtype, shape }]));
}

/** Joins along an axis; `dim` names the joined length where it is not the sum of numbers. */
export function concat(values: readonly Value[], axis: number, dim?: Dim): Value {
  const first = values[0];
  if (first === undefined) throw new RangeError("Concat: needs at least one value");
  const at = normalizeAxis(axis, first.shape.length, "Concat");
  let joined = dim;
  if (joined === undefined) {
    let sum = 0;
    for (const value of values) {
      const length = dimAt(value.shape, at);
      if (typeof length !== "number")
        throw new RangeError(`Concat: name the joined length of symbolic axis ${at}`);
      sum += length;
    }
    joined = sum;
  }
  const shape = first.shape.map((old, i) => (i === at ? (joined ?? old) : old));
  for (const value of values) {
    const others = value.shape.map((length, i) => (i === at ? (shape[at] ?? length) : length));
    if (value.dtype !== first.dtype || !sameShape(others, shape)) {
      throw new RangeError(
        `Concat: ${value.dtype} [${value.shape}] does not join ${first.dtype} [${first.shape}] along axis ${at}`,
      );
    }
  }
  return one(applyOp("Concat", { axis: at }, values, [{ dtype: first.dtype, shape }]));
}

/** Cuts an axis into parts of these lengths, which may be symbolic; the axis is as long as they are together. */
export function split(x: Value, axis: number, lengths: Shape): readonly Value[] {
  const at = normalizeAxis(axis, x.shape.length, "Split");
  const outputs = lengths.map((length) => ({
    dtype: x.dtype,
    shape: x.shape.map((dim, i) => (i === at ? length : dim)),
  }));
  return applyOp("Split", { axis: at, lengths }, [x], outputs);
}

/** Broadcasts to a shape. */
export function expand(x: Value, shape: Shape): Value {
  if (!sameShape(broadcastShapes(x.shape, shape, "Expand"), shape)) {
    throw new RangeError(`Expand: [${x.shape}] is not broadcast to [${shape}]`);
  }
  return sameShape(x.shape, shape) ? x : one(applyOp("Expand", { shape }, [x], [{ dtype: x.dtype, shape }]));
}

/** A tensor filled with one number. */
export function fill(shape: Shape, value: number, dtype: DType = "float32"): Value {
  return one(applyOp("Fill", { shape, value, dtype }, [], [{ dtype, shape }]));
}

/** The length of a dimension as an int64 scalar. */
export function dimSize(dim: Dim): Value {
  return one(applyOp("DimSize", { dim }, [], [{ dtype: "int64", shape: [] }]));
}

/** `0, 1, ..., dim - 1` as int64. */
export function range(dim: Dim): Value {
  return one(applyOp("Range", { dim }, [], [{ dtype: "int64", shape: [dim] }]));
}

export interface ReduceOptions {
  /** Default: all axes. */
  readonly axes?: readonly number[];
  readonly keepDims?: boolean;
}

function reduce(op: "ReduceSum" | "ReduceMean" | "ReduceMax", x: Value, options: ReduceOptions): Value {
  const { axes = x.shape.map((_, i) => i), keepDims = false } = options;
  const at = axes.map((axis) => normalizeAxis(axis, x.shape.length, op));
  if (at.length === 0) return x;
  const shape = keepDims
    ? x.shape.map((dim, i) => (at.includes(i) ? 1 : dim))
    : x.shape.filter((_, i) => !at.includes(i));
  return one(applyOp(op, { axes: at, keepDims }, [x], [{ dtype: x.dtype, shape }]));
}

export const reduceSum = (x: Value, options: ReduceOptions = {}): Value => reduce("ReduceSum", x, options);
export const reduceMean = (x: Value, options: ReduceOptions = {}): Value => reduce("ReduceMean", x, options);
export const reduceMax = (x: Value, options: ReduceOptions = {}): Value => reduce("ReduceMax", x, options);

/** Slices of `x` along `axis` at int64 `indices` of any shape. */
export function gather(x: Value, indices: Value, axis = 0): Value {
  const at = normalizeAxis(axis, x.shape.length, "Gather");
  const shape = [...x.shape.slice(0, at), ...indices.shape, ...x.shape.slice(at + 1)];
  return one(applyOp("Gather", { axis: at }, [x, indices], [{ dtype: x.dtype, shape }]));
}

export function gatherElements(x: Value, indices: Value, axis: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "GatherElements");
  return one(
    applyOp("GatherElements", { axis: at }, [x, indices], [{ dtype: x.dtype, shape: indices.shape }]),
  );
}

/** Adds `updates` to `x` at `indices` along `axis`; repeated indices add up. */
export function scatterElements(x: Value, indices: Value, updates: Value, axis: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "ScatterElements");
  return one(applyOp("ScatterElements", { axis: at }, [x, indices, updates], [x]));
}

/** Adds rows `updates [..., columns]` to rows of a matrix `x` at `indices [..., 1]`; repeated indices add up. */
export function scatterND(x: Value, indices: Value, updates: Value): Value {
  const rows = indices.shape.slice(0, -1);
  if (x.shape.length !== 2 || !sameShape(updates.shape, [...rows, dimAt(x.shape, 1)])) {
    throw new RangeError(
      `ScatterND: got x [${x.shape}], indices [${indices.shape}], updates [${updates.shape}]; ` +
        "expected [rows, columns], [..., 1], [..., columns]",
    );
  }
  return one(applyOp("ScatterND", {}, [x, indices, updates], [x]));
}

/** Index of the largest element along an axis, which is dropped. */
export function argMax(x: Value, axis: number): Value {
  const at = normalizeAxis(axis, x.shape.length, "ArgMax");
  return one(
    applyOp("ArgMax", { axis: at }, [x], [{ dtype: "int64", shape: x.shape.filter((_, i) => i !== at) }]),
  );
}

/** A float32 constant from numbers. */
export function vector(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Value {
  return constant(float32(shape, values));
}

/** Sum of squares of all elements. */
export function squaredNorm(x: Value): Value {
  return reduceSum(mul(x, x));
}

/** Sums `gradient` over the axes along which `shape` was broadcast. */
export function sumToShape(gradient: Value, shape: Shape): Value {
  const extra = gradient.shape.length - shape.length;
  const axes = gradient.shape.flatMap((dim, i) =>
    i < extra || (shape[i - extra] === 1 && dim !== 1) ? [i] : [],
  );
  if (axes.length === 0) return reshape(gradient, shape);
  const summed = reduceSum(gradient, { axes, keepDims: true });
  return reshape(summed, shape);
}
