import { after } from "../../src/graph/ops/after.ts";
import { blocksOf, dequantizeBlocks, dequantizeHalf, matMulNBits } from "../../src/graph/ops/blocks.ts";
import {
  abs,
  add,
  and,
  argMax,
  cast,
  concat,
  cos,
  dimSize,
  div,
  equal,
  erf,
  exp,
  expand,
  fill,
  gather,
  gatherElements,
  gelu,
  gemm,
  layerNormalization,
  less,
  lessOrEqual,
  log,
  logSoftmax,
  type MatMulOptions,
  matMul,
  max,
  min,
  mul,
  neg,
  not,
  pow,
  quickGelu,
  range,
  reciprocal,
  reduceMax,
  reduceMean,
  reduceSum,
  relu,
  reshape,
  rotaryEmbedding,
  scatterElements,
  scatterND,
  sigmoid,
  sign,
  simplifiedLayerNormalization,
  sin,
  slice,
  softmax,
  split,
  sqrt,
  stopGradient,
  sub,
  tanh,
  transpose,
  where,
} from "../../src/graph/ops.ts";
import type { Shape } from "../../src/graph/shape.ts";
import type { OpType, Value } from "../../src/graph/value.ts";
import type { DType } from "../../src/tensor/dtype.ts";

/** Uniform numbers in [0, 1) from a 32-bit linear congruential generator. */
export type Draw = () => number;

export function uniforms(seed: number): Draw {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** One graph input of a case. Floats take the dtype of the run. */
export interface CaseInput {
  readonly shape: Shape;
  readonly dtype: "float" | "int64" | "uint8";
  element(draw: Draw): number;
}

/** An application of one op to inputs x0, x1, ... */
export interface OpCase {
  readonly title: string;
  readonly inputs: readonly CaseInput[];
  build(x: readonly Value[], float: DType): Value;
  /** Indices of float inputs that have no gradient by intent. */
  readonly constant?: readonly number[];
}

const B = "batch";
const T = "sequence";

/** Numbers in [-2, 2). */
const real = (...shape: Shape): CaseInput => ({ shape, dtype: "float", element: (draw) => 4 * draw() - 2 });
/** Numbers in [0.5, 2). */
const positive = (...shape: Shape): CaseInput => ({
  shape,
  dtype: "float",
  element: (draw) => 0.5 + 1.5 * draw(),
});
/** Multiples of 1/2 in [-1, 1], so that equal numbers are frequent. */
const coarse = (...shape: Shape): CaseInput => ({
  shape,
  dtype: "float",
  element: (draw) => Math.floor(5 * draw()) / 2 - 1,
});
/** Integers in [0, bound). */
const index = (bound: number, ...shape: Shape): CaseInput => ({
  shape,
  dtype: "int64",
  element: (draw) => Math.floor(bound * draw()),
});

/** Bytes. */
const bytes = (...shape: Shape): CaseInput => ({
  shape,
  dtype: "uint8",
  element: (draw) => Math.floor(256 * draw()),
});
const at = (x: readonly Value[], i = 0): Value => {
  const value = x[i];
  if (!value) throw new Error(`case: no input ${i}`);
  return value;
};

const unary = (op: (x: Value) => Value, input: CaseInput = real(B, T, 3)): readonly OpCase[] => [
  { title: `of [${input.shape}]`, inputs: [input], build: (x) => op(at(x)) },
];

/** Broadcasting on both sides, of scalars, and of one value with itself. */
const binary = (
  op: (a: Value | number, b: Value | number) => Value,
  left: (...shape: Shape) => CaseInput = real,
  right: (...shape: Shape) => CaseInput = left,
): readonly OpCase[] => [
  {
    title: "of equal shapes",
    inputs: [left(B, 3), right(B, 3)],
    build: (x) => op(at(x), at(x, 1)),
  },
  {
    title: "broadcasting both sides",
    inputs: [left(B, 1, 3), right(T, 1)],
    build: (x) => op(at(x), at(x, 1)),
  },
  { title: "with a row", inputs: [left(B, T, 3), right(3)], build: (x) => op(at(x), at(x, 1)) },
  { title: "with a scalar on the left", inputs: [left(), right(B, 3)], build: (x) => op(at(x), at(x, 1)) },
  { title: "with a number", inputs: [left(B, 3)], build: (x) => op(at(x), 1.25) },
  { title: "of a number", inputs: [right(B, 3)], build: (x) => op(1.25, at(x)) },
];

const product = (a: CaseInput, b: CaseInput, options: MatMulOptions = {}): OpCase => {
  const { transA = false, transB = false, alpha = 1 } = options;
  return {
    title: `of [${a.shape}]${transA ? "ᵀ" : ""} and [${b.shape}]${transB ? "ᵀ" : ""} times ${alpha}`,
    inputs: [a, b],
    build: (x) => matMul(at(x), at(x, 1), options),
  };
};

const flags = [false, true].flatMap((transA) => [false, true].map((transB) => ({ transA, transB })));
const matrix = (
  transposed: boolean,
  lead: Shape,
  rows: number | string,
  columns: number | string,
): CaseInput => (transposed ? real(...lead, columns, rows) : real(...lead, rows, columns));

const products: readonly OpCase[] = [
  ...flags.flatMap(({ transA, transB }) =>
    [1, -0.7].flatMap((alpha) => [
      product(matrix(transA, [], B, 3), matrix(transB, [], 3, 4), { transA, transB, alpha }),
      // A weight shared by the batch.
      product(matrix(transA, [B], T, 3), matrix(transB, [], 3, 4), { transA, transB, alpha }),
      product(matrix(transA, [B, 2], T, 3), matrix(transB, [B, 2], 3, 5), { transA, transB, alpha }),
    ]),
  ),
  ...flags.map((flag) => product(matrix(flag.transA, [], 2, 3), matrix(flag.transB, [B], 3, T), flag)),
  // Grouped queries: one key head serves three query heads.
  product(real(B, 2, 3, T, 4), real(B, 2, 1, T, 4), { transB: true, alpha: 0.5 }),
  product(real(B, 2, 3, T, T), real(B, 2, 1, T, 4)),
  product(real(B, 1, T, 4), real(1, 2, 4, 3)),
];

const reductions = (op: typeof reduceSum, input = real): readonly OpCase[] => [
  { title: "over all axes", inputs: [input(B, T, 3)], build: (x) => op(at(x)) },
  { title: "over the last axis", inputs: [input(B, T, 3)], build: (x) => op(at(x), { axes: [-1] }) },
  {
    title: "over two axes, kept",
    inputs: [input(2, T, 3)],
    build: (x) => op(at(x), { axes: [0, 2], keepDims: true }),
  },
];

/** Cases of every op; complete by type. */
export const cases: { readonly [K in OpType]: readonly OpCase[] } = {
  Add: binary(add),
  Sub: binary(sub),
  Mul: binary(mul),
  Div: binary(div, real, positive),
  Pow: binary(pow, positive, real),
  Min: [...binary(min), { title: "with ties", inputs: [real(B, 3)], build: (x) => min(at(x), at(x)) }],
  Max: [...binary(max), { title: "with ties", inputs: [real(B, 3)], build: (x) => max(at(x), at(x)) }],
  Neg: unary(neg),
  Exp: unary(exp),
  Log: unary(log, positive(B, 3)),
  Sqrt: unary(sqrt, positive(B, 3)),
  Reciprocal: unary(reciprocal, positive(B, 3)),
  Tanh: unary(tanh),
  Sigmoid: unary(sigmoid),
  Erf: unary(erf),
  Abs: unary(abs),
  Sign: unary(sign),
  Identity: unary(stopGradient),
  Relu: unary(relu),
  Sin: unary(sin),
  Cos: unary(cos),
  Gelu: [...unary((x) => gelu(x)), ...unary((x) => gelu(x, "tanh"))],
  QuickGelu: [...unary((x) => quickGelu(x, 1)), ...unary((x) => quickGelu(x, 1.702))],
  Where: [
    {
      title: "broadcasting all three",
      inputs: [real(B, 1, 3), real(T, 1), real(3)],
      build: (x) => where(less(at(x), 0), at(x, 1), at(x, 2)),
      constant: [0],
    },
    {
      title: "with a number",
      inputs: [real(B, 3), real(B, 3)],
      build: (x) => where(less(at(x), 0), at(x, 1), -3),
      constant: [0],
    },
  ],
  Equal: binary((a, b) => equal(a, b), coarse),
  Less: binary((a, b) => less(a, b), coarse),
  LessOrEqual: binary((a, b) => lessOrEqual(a, b), coarse),
  And: [
    {
      title: "of comparisons",
      inputs: [real(B, 1), real(3)],
      build: (x) => and(less(at(x), 0), less(at(x, 1), 0)),
    },
  ],
  Not: unary((x) => not(less(x, 0))),
  Cast: [
    {
      title: "from and to float",
      inputs: [real(B, 3)],
      build: (x, float) => cast(cast(at(x), float === "float64" ? "float32" : "float64"), float),
    },
    { title: "of integers", inputs: [index(9, B)], build: (x, float) => cast(at(x), float) },
    {
      title: "of booleans",
      inputs: [real(B, 3)],
      build: (x, float) => cast(less(at(x), 0), float),
      constant: [0],
    },
    { title: "to integers", inputs: [real(B, 3)], build: (x) => cast(at(x), "int64"), constant: [0] },
  ],
  MatMul: products,
  Gemm: [
    {
      title: "of rows",
      inputs: [real(B, 3), real(4, 3), real(4)],
      build: (x) => gemm(at(x), at(x, 1), at(x, 2)),
    },
  ],
  Softmax: unary(softmax),
  LogSoftmax: unary(logSoftmax),
  LayerNormalization: [
    {
      title: "of rows",
      inputs: [real(B, T, 5), real(5), real(5)],
      build: (x) => layerNormalization(at(x), at(x, 1), at(x, 2), 1e-5),
    },
  ],
  SimplifiedLayerNormalization: [
    {
      title: "of rows",
      inputs: [real(B, T, 5), real(5)],
      build: (x) => simplifiedLayerNormalization(at(x), at(x, 1), 1e-5),
    },
  ],
  RotaryEmbedding: [
    {
      title: "at given positions",
      inputs: [real(B, 2, T, 4), index(7, B, T), real(7, 2), real(7, 2)],
      build: (x) => rotaryEmbedding(at(x), at(x, 1), at(x, 2), at(x, 3)),
      constant: [2, 3],
    },
    {
      title: "from an offset",
      inputs: [real(B, 2, T, 4), index(3, 1), real(7, 2), real(7, 2)],
      build: (x) => rotaryEmbedding(at(x), at(x, 1), at(x, 2), at(x, 3)),
      constant: [2, 3],
    },
  ],
  Reshape: [
    {
      title: "merging two symbolic axes",
      inputs: [real(B, T, 6)],
      build: (x) => reshape(at(x), [`${B}*${T}`, 6]),
    },
    {
      title: "splitting heads",
      inputs: [real(B, T, 6)],
      build: (x) => reshape(at(x), [B, T, 3, 2]),
    },
    {
      title: "moving a symbolic axis past another",
      inputs: [real(B, 2, T), real(T)],
      build: (x) => mul(reshape(at(x), [`2*${B}`, T]), at(x, 1)),
    },
    {
      title: "exchanging two symbolic axes",
      inputs: [real(B, 2, T)],
      build: (x) => reshape(at(x), [T, B, 2]),
    },
  ],
  Transpose: unary((x) => transpose(x, [2, 0, 1])),
  Slice: [
    { title: "inside", inputs: [real(B, 5)], build: (x) => slice(at(x), 1, 1, 3) },
    { title: "from the start", inputs: [real(5, B)], build: (x) => slice(at(x), 0, 0, 2) },
    { title: "to the end", inputs: [real(B, 5, 2)], build: (x) => slice(at(x), -2, 4, 5) },
    {
      title: "of one element along a symbolic axis",
      inputs: [real(B, T, 3)],
      build: (x) => slice(at(x), 1, 1, 2),
    },
  ],
  Concat: [
    {
      title: "along the last axis",
      inputs: [real(B, 2), real(B, 3), real(B, 1)],
      build: (x) => concat(x, -1),
    },
  ],
  Split: [
    { title: "the second part", inputs: [real(B, 5)], build: (x) => at(split(at(x), -1, [2, 3]), 1) },
    { title: "of a symbolic length", inputs: [real(B, 2)], build: (x) => at(split(at(x), 0, [B])) },
  ],
  Expand: [
    { title: "of a column", inputs: [real(B, 1)], build: (x) => expand(at(x), [B, 3]) },
    { title: "with new axes", inputs: [real(1, T), real(B)], build: (x) => expand(at(x), [B, 2, T]) },
  ],
  Fill: [
    {
      title: "of a symbolic shape",
      inputs: [real(B, T)],
      build: (x, float) => mul(add(at(x), 0), fill([B, T], 2.5, float)),
    },
    { title: "of a scalar", inputs: [real()], build: (x, float) => mul(at(x), fill([], -1.5, float)) },
  ],
  DimSize: [
    {
      title: "of a product",
      inputs: [real(B, T)],
      build: (x, float) => mul(at(x), cast(dimSize(`3*${B}*${T}`), float)),
    },
    {
      title: "of a number",
      inputs: [real(B, T)],
      build: (x, float) => mul(at(x), cast(dimSize(7), float)),
    },
  ],
  Range: [
    { title: "of a symbol", inputs: [real(B, T)], build: (x, float) => mul(at(x), cast(range(T), float)) },
  ],
  ReduceSum: reductions(reduceSum),
  ReduceMean: [
    {
      title: "over the last axis, kept",
      inputs: [real(B, T, 3)],
      build: (x) => reduceMean(at(x), { axes: [-1], keepDims: true }),
    },
    { title: "over two axes", inputs: [real(2, T, 3)], build: (x) => reduceMean(at(x), { axes: [0, 2] }) },
  ],
  ReduceMax: reductions(reduceMax),
  Gather: [
    {
      title: "of rows that repeat",
      inputs: [real(4, 3), index(4, B, T)],
      build: (x) => gather(at(x), at(x, 1)),
    },
    { title: "by one list", inputs: [real(B, 3), index(2, 5)], build: (x) => gather(at(x), at(x, 1)) },
  ],
  GatherElements: [
    {
      title: "along the last axis",
      inputs: [real(B, 4), index(4, B, 3)],
      build: (x) => gatherElements(at(x), at(x, 1), -1),
    },
    {
      title: "along the first axis",
      inputs: [real(3, 2), index(3, 5, 2)],
      build: (x) => gatherElements(at(x), at(x, 1), 0),
    },
  ],
  ScatterElements: [
    {
      title: "where an index repeats",
      inputs: [real(B, 4), index(4, B, 6), real(B, 6)],
      build: (x) => scatterElements(at(x), at(x, 1), at(x, 2), 1),
    },
  ],
  ScatterND: [
    {
      title: "of rows that repeat",
      inputs: [real(4, 3), index(4, T, 1), real(T, 3)],
      build: (x) => scatterND(at(x), at(x, 1), at(x, 2)),
    },
    {
      title: "of rows under two axes",
      inputs: [real(4, 3), index(4, B, T, 1), real(B, T, 3)],
      build: (x) => scatterND(at(x), at(x, 1), at(x, 2)),
    },
  ],
  ArgMax: unary((x) => argMax(x, 1)),
  After: [
    {
      title: "a value of the batch",
      inputs: [real(4, 3), real(T, B)],
      build: (x) => after(at(x), at(x, 1)),
    },
    { title: "a known shape", inputs: [real(4), real(2)], build: (x) => after(at(x), at(x, 1)) },
  ],
  DequantizeBlocks: [
    {
      title: "of two blocks a row",
      inputs: [bytes(3, 2, 16), positive(3, 2), real(3, 2)],
      build: (x) => dequantizeBlocks(blocksOf(x)),
      constant: [1, 2],
    },
    {
      title: "of eight bits, rows under a symbol",
      inputs: [bytes(B, 2, 32), positive(B, 2)],
      build: (x) => dequantizeBlocks(blocksOf(x)),
      constant: [1],
    },
  ],
  DequantizeHalf: (["even", "odd"] as const).map((half) => ({
    title: `of ${half} columns`,
    inputs: [bytes(3, 2, 16), positive(3, 2), real(3, 2)],
    build: (x) => dequantizeHalf({ levels: at(x), scales: at(x, 1), offsets: at(x, 2) }, half),
    constant: [1, 2],
  })),
  MatMulNBits: [
    {
      title: "of rows under two axes",
      inputs: [real(B, T, 64), bytes(5, 2, 16), positive(5, 2), real(5, 2)],
      build: (x) => matMulNBits(at(x), blocksOf(x.slice(1))),
      constant: [2, 3],
    },
  ],
};
