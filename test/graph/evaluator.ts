import type { Dim, Shape } from "../../src/graph/shape.ts";
import { factorsOf } from "../../src/graph/shape.ts";
import type { Node, OpAttributes, OpType, Value } from "../../src/graph/value.ts";
import { topological } from "../../src/graph/value.ts";
import { convert } from "../../src/tensor/convert.ts";

/** Numbers in row-major order, whatever the dtype: booleans are 0 and 1, integers are exact below 2^53. */
export interface Array64 {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

export const array64 = (shape: readonly number[], values: ArrayLike<number>): Array64 => ({
  shape,
  data: Float64Array.from(values),
});

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** An array whose elements are a function of their coordinates. */
function tabulate(
  shape: readonly number[],
  element: (at: readonly number[], flat: number) => number,
): Array64 {
  const data = new Float64Array(count(shape));
  const at = shape.map(() => 0);
  for (let flat = 0; flat < data.length; flat++) {
    data[flat] = element(at, flat);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at[axis] = at[axis]! + 1;
      if (at[axis]! < shape[axis]!) break;
      at[axis] = 0;
    }
  }
  return { shape, data };
}

/** The element at coordinates, counted from the last axis; axes of length 1 repeat. */
function element(x: Array64, at: readonly number[]): number {
  let flat = 0;
  const extra = at.length - x.shape.length;
  x.shape.forEach((length, axis) => {
    flat = flat * length + (length === 1 ? 0 : at[axis + extra]!);
  });
  return x.data[flat]!;
}

function broadcast(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) =>
    shapes.reduce((length, shape) => {
      const own = shape[i - rank + shape.length] ?? 1;
      return length === 1 ? own : length;
    }, 1),
  );
}

function elementwise(fn: (...x: number[]) => number, ...inputs: readonly Array64[]): Array64 {
  return tabulate(broadcast(...inputs.map((x) => x.shape)), (at) => fn(...inputs.map((x) => element(x, at))));
}

/** erf x = 2/√π exp(-x²) Σ 2^n x^(2n+1) / (2n+1)!!, whose terms are all positive. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  let sum = z;
  for (let n = 1, term = z; term > sum * 1e-18; n++) {
    term *= (2 * z * z) / (2 * n + 1);
    sum += term;
  }
  return Math.sign(x) * ((2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum);
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** The last two axes as a matrix element, after an optional transposition. */
function matMul(a: Array64, b: Array64, { transA, transB, alpha }: OpAttributes["MatMul"]): Array64 {
  const dim = (x: Array64, fromEnd: number): number => x.shape[x.shape.length - fromEnd]!;
  const [rows, inner] = transA ? [dim(a, 1), dim(a, 2)] : [dim(a, 2), dim(a, 1)];
  const columns = transB ? dim(b, 2) : dim(b, 1);
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  return tabulate([...batch, rows, columns], (at) => {
    const lead = at.slice(0, -2);
    const [i, j] = [at[at.length - 2]!, at[at.length - 1]!];
    let sum = 0;
    for (let k = 0; k < inner; k++) {
      sum +=
        element(a, [...lead, ...(transA ? [k, i] : [i, k])]) *
        element(b, [...lead, ...(transB ? [j, k] : [k, j])]);
    }
    return alpha * sum;
  });
}

/** Groups the elements over `axes` and reduces each group. */
function reduce(
  x: Array64,
  { axes, keepDims }: OpAttributes["ReduceSum"],
  fn: (group: number[]) => number,
): Array64 {
  const kept = x.shape.map((length, axis) => (axes.includes(axis) ? 1 : length));
  const groups = new Map<number, number[]>();
  tabulate(x.shape, (at) => {
    let flat = 0;
    kept.forEach((length, axis) => {
      flat = flat * length + (length === 1 ? 0 : at[axis]!);
    });
    const group = groups.get(flat) ?? [];
    group.push(element(x, at));
    groups.set(flat, group);
    return 0;
  });
  const data = Float64Array.from({ length: count(kept) }, (_, flat) => fn(groups.get(flat) ?? []));
  return { shape: keepDims ? kept : x.shape.filter((_, axis) => !axes.includes(axis)), data };
}

const total = (group: readonly number[]): number => group.reduce((a, b) => a + b, 0);
const mean = (group: readonly number[]): number => total(group) / group.length;

/** Applies a function to each row along the last axis. */
function rows(x: Array64, fn: (row: readonly number[]) => readonly number[]): Array64 {
  const width = x.shape.at(-1) ?? 1;
  const data: number[] = [];
  for (let start = 0; start < x.data.length; start += width)
    data.push(...fn([...x.data.subarray(start, start + width)]));
  return array64([...x.shape.slice(0, -1), width === 0 ? 0 : data.length / (x.data.length / width)], data);
}

const scaled = (row: readonly number[], factor: number): number[] => row.map((v) => v * factor);

/** The inverse root of the mean square. */
const inverseRms = (row: readonly number[], epsilon: number): number =>
  1 / Math.sqrt(mean(row.map((v) => v * v)) + epsilon);

/** An index counted from the end where it is negative. */
function resolve(index: number, length: number): number {
  const at = index < 0 ? index + length : index;
  if (at < 0 || at >= length) throw new RangeError(`evaluator: index ${index} is outside length ${length}`);
  return at;
}

const replaced = (at: readonly number[], axis: number, index: number): number[] =>
  at.map((old, i) => (i === axis ? index : old));

function flatten(shape: readonly number[], at: readonly number[]): number {
  return shape.reduce((flat, length, axis) => flat * length + at[axis]!, 0);
}

interface Application<K extends OpType> {
  readonly attributes: OpAttributes[K];
  readonly x: readonly Array64[];
  length(dim: Dim): number;
  shape(shape: Shape): number[];
}

type Evaluate<K extends OpType> = (application: Application<K>) => readonly Array64[];

const unary =
  (fn: (x: number) => number): ((application: { readonly x: readonly Array64[] }) => readonly Array64[]) =>
  ({ x: [x] }) => [elementwise(fn, x!)];

const binary =
  (
    fn: (a: number, b: number) => number,
  ): ((application: { readonly x: readonly Array64[] }) => readonly Array64[]) =>
  ({ x: [a, b] }) => [elementwise(fn, a!, b!)];

/** A matrix in blocks of 32 levels: two in a byte, the first in its low half, or one in a byte where there are no offsets. */
function dequantized(levels: Array64, scales: Array64, offsets?: Array64): Array64 {
  const [out = 0, blocks = 0] = scales.shape;
  if (!offsets)
    return tabulate([out, 32 * blocks], (_, flat) => scales.data[flat >> 5]! * (levels.data[flat]! - 128));
  return tabulate([out, 32 * blocks], (_, flat) => {
    const byte = levels.data[flat >> 1]!;
    const level = flat % 2 === 0 ? byte % 16 : Math.floor(byte / 16);
    return scales.data[flat >> 5]! * level - offsets.data[flat >> 5]!;
  });
}

/** Every op in float64, from its definition and not from its gradient or its lowering. */
const evaluators: { readonly [K in OpType]: Evaluate<K> } = {
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
  Pow: binary((a, b) => a ** b),
  Min: binary((a, b) => Math.min(a, b)),
  Max: binary((a, b) => Math.max(a, b)),
  Neg: unary((x) => -x),
  Exp: unary(Math.exp),
  Log: unary(Math.log),
  Sqrt: unary(Math.sqrt),
  Reciprocal: unary((x) => 1 / x),
  Tanh: unary(Math.tanh),
  Sigmoid: unary(sigmoid),
  Erf: unary(erf),
  Abs: unary(Math.abs),
  Sign: unary(Math.sign),
  Identity: unary((x) => x),
  Relu: unary((x) => Math.max(x, 0)),
  Sin: unary(Math.sin),
  Cos: unary(Math.cos),
  Gelu: ({ attributes, x: [x] }) => [
    elementwise(
      attributes.approximate === "none"
        ? (v) => (v / 2) * (1 + erf(v / Math.SQRT2))
        : (v) => (v / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
      x!,
    ),
  ],
  QuickGelu: ({ attributes: { alpha }, x: [x] }) => [elementwise((v) => v * sigmoid(alpha * v), x!)],
  Where: ({ x: [c, a, b] }) => [elementwise((yes, p, q) => (yes ? p : q) ?? 0, c!, a!, b!)],
  Equal: binary((a, b) => Number(a === b)),
  Less: binary((a, b) => Number(a < b)),
  LessOrEqual: binary((a, b) => Number(a <= b)),
  And: binary((a, b) => a * b),
  Not: unary((x) => 1 - x),
  Cast: ({ attributes: { to }, x: [x] }) => [
    to === "bool"
      ? elementwise((v) => Number(v !== 0), x!)
      : to.startsWith("float")
        ? x!
        : elementwise(Math.trunc, x!),
  ],
  MatMul: ({ attributes, x: [a, b] }) => [matMul(a!, b!, attributes)],
  Gemm: ({ x: [x, w, bias] }) => [
    elementwise((y, b) => y + b, matMul(x!, w!, { transA: false, transB: true, alpha: 1 }), bias!),
  ],
  Softmax: ({ x: [x] }) => [
    rows(x!, (row) => {
      const powers = row.map((v) => Math.exp(v - Math.max(...row)));
      return powers.map((p) => p / total(powers));
    }),
  ],
  LogSoftmax: ({ x: [x] }) => [
    rows(x!, (row) => {
      const top = Math.max(...row);
      const log = top + Math.log(total(row.map((v) => Math.exp(v - top))));
      return row.map((v) => v - log);
    }),
  ],
  LayerNormalization: ({ attributes: { epsilon }, x: [x, weight, bias] }) => {
    const centered = (row: readonly number[]): number[] => {
      const center = mean(row);
      return row.map((v) => v - center);
    };
    const inverse = (row: readonly number[]): number => inverseRms(centered(row), epsilon);
    const normalized = rows(x!, (row) => scaled(centered(row), inverse(row)));
    return [
      elementwise((v, w, b) => v * w + b, normalized, weight!, bias!),
      rows(x!, (row) => [mean(row)]),
      rows(x!, (row) => [inverse(row)]),
    ];
  },
  SimplifiedLayerNormalization: ({ attributes: { epsilon }, x: [x, weight] }) => {
    const normalized = rows(x!, (row) => scaled(row, inverseRms(row, epsilon)));
    return [elementwise((v, w) => v * w, normalized, weight!)];
  },
  RotaryEmbedding: ({ x: [x, positions, cosine, sine] }) => {
    const half = x!.shape[3]! / 2;
    return [
      tabulate(x!.shape, ([b, h, t, i]) => {
        const position =
          positions!.shape.length === 1 ? positions!.data[0]! + t! : element(positions!, [b!, t!]);
        const pair = i! % half;
        const [c, s] = [element(cosine!, [position, pair]), element(sine!, [position, pair])];
        const [low, high] = [element(x!, [b!, h!, t!, pair]), element(x!, [b!, h!, t!, pair + half])];
        return i! < half ? low * c - high * s : high * c + low * s;
      }),
    ];
  },
  Reshape: ({ attributes, x: [x], shape }) => [{ shape: shape(attributes.shape), data: x!.data }],
  Transpose: ({ attributes: { perm }, x: [x] }) => [
    tabulate(
      perm.map((axis) => x!.shape[axis]!),
      (at) =>
        element(
          x!,
          perm.map((_, axis) => at[perm.indexOf(axis)]!),
        ),
    ),
  ],
  Slice: ({ attributes: { axis, start, end }, x: [x] }) => [
    tabulate(replaced(x!.shape, axis, end - start), (at) =>
      element(x!, replaced(at, axis, at[axis]! + start)),
    ),
  ],
  Split: ({ attributes: { axis, lengths }, x: [x], length }) => {
    let end = 0;
    return lengths.map(length).map((own) => {
      end += own;
      const start = end - own;
      return tabulate(replaced(x!.shape, axis, own), (at) =>
        element(x!, replaced(at, axis, at[axis]! + start)),
      );
    });
  },
  Concat: ({ attributes: { axis }, x }) => {
    const joined = total(x.map((part) => part.shape[axis]!));
    return [
      tabulate(replaced(x[0]!.shape, axis, joined), (at) => {
        let index = at[axis]!;
        for (const part of x) {
          if (index < part.shape[axis]!) return element(part, replaced(at, axis, index));
          index -= part.shape[axis]!;
        }
        return Number.NaN;
      }),
    ];
  },
  Expand: ({ attributes, x: [x], shape }) => [tabulate(shape(attributes.shape), (at) => element(x!, at))],
  Fill: ({ attributes, shape }) => [tabulate(shape(attributes.shape), () => attributes.value)],
  DimSize: ({ attributes, length }) => [array64([], [length(attributes.dim)])],
  Range: ({ attributes, length }) => [tabulate([length(attributes.dim)], ([i]) => i!)],
  ReduceSum: ({ attributes, x: [x] }) => [reduce(x!, attributes, total)],
  ReduceMean: ({ attributes, x: [x] }) => [reduce(x!, attributes, mean)],
  ReduceMax: ({ attributes, x: [x] }) => [reduce(x!, attributes, (group) => Math.max(...group))],
  Gather: ({ attributes: { axis }, x: [x, indices] }) => {
    const rank = indices!.shape.length;
    const shape = [...x!.shape.slice(0, axis), ...indices!.shape, ...x!.shape.slice(axis + 1)];
    return [
      tabulate(shape, (at) => {
        const index = resolve(element(indices!, at.slice(axis, axis + rank)), x!.shape[axis]!);
        return element(x!, [...at.slice(0, axis), index, ...at.slice(axis + rank)]);
      }),
    ];
  },
  GatherElements: ({ attributes: { axis }, x: [x, indices] }) => [
    tabulate(indices!.shape, (at) => {
      const index = resolve(indices!.data[flatten(indices!.shape, at)]!, x!.shape[axis]!);
      return x!.data[flatten(x!.shape, replaced(at, axis, index))]!;
    }),
  ],
  ScatterElements: ({ attributes: { axis }, x: [x, indices, updates] }) => {
    const data = Float64Array.from(x!.data);
    tabulate(indices!.shape, (at, flat) => {
      const index = resolve(indices!.data[flat]!, x!.shape[axis]!);
      const to = flatten(x!.shape, replaced(at, axis, index));
      data[to] = data[to]! + updates!.data[flat]!;
      return 0;
    });
    return [{ shape: x!.shape, data }];
  },
  ScatterND: ({ x: [x, indices, updates] }) => {
    const data = Float64Array.from(x!.data);
    const width = count(x!.shape.slice(1));
    updates!.data.forEach((update, flat) => {
      const row = resolve(indices!.data[Math.floor(flat / width)]!, x!.shape[0]!);
      const to = row * width + (flat % width);
      data[to] = data[to]! + update;
    });
    return [{ shape: x!.shape, data }];
  },
  ArgMax: ({ attributes: { axis }, x: [x] }) => [
    reduce(x!, { axes: [axis], keepDims: false }, (group) => group.indexOf(Math.max(...group))),
  ],
  After: ({ x: [x] }) => [x!],
  DequantizeBlocks: ({ x: [levels, scales, offsets] }) => [dequantized(levels!, scales!, offsets)],
  DequantizeHalf: ({ attributes: { half }, x: [levels, scales] }) => {
    const nothing = { shape: scales!.shape, data: new Float64Array(scales!.data.length) };
    const { shape, data } = dequantized(levels!, scales!, nothing);
    const odd = half === "odd" ? 1 : 0;
    return [{ shape: [shape[0]!, shape[1]! / 2], data: data.filter((_, i) => i % 2 === odd) }];
  },
  MatMulNBits: ({ x: [x, levels, scales, offsets] }) => [
    matMul(x!, dequantized(levels!, scales!, offsets), { transA: false, transB: true, alpha: 1 }),
  ],
};

/** Lengths of the symbols in the shapes of the inputs; throws where a feed contradicts a shape. */
function bind(inputs: Iterable<Value>, feeds: ReadonlyMap<string, Array64>): Map<string, number> {
  const lengths = new Map<string, number>();
  for (const { name, shape } of inputs) {
    if (name === undefined) continue;
    const feed = feeds.get(name);
    if (!feed) throw new Error(`evaluator: no feed for "${name}"`);
    shape.forEach((dim, axis) => {
      const got = feed.shape[axis];
      const expected = typeof dim === "number" ? dim : (lengths.get(dim) ?? got);
      if (got === undefined || got !== expected || feed.shape.length !== shape.length)
        throw new Error(`evaluator: "${name}" has shape [${feed.shape}], expected [${shape}]`);
      if (typeof dim === "string") lengths.set(dim, got);
    });
  }
  return lengths;
}

/**
 * Values of a graph in float64, in the order of `outputs`. `inputs` are the graph inputs that bind the symbolic
 * dimensions. Every result is held against the inferred shape.
 */
export function evaluate(
  outputs: readonly Value[],
  inputs: readonly Value[],
  feeds: ReadonlyMap<string, Array64>,
): Array64[] {
  const lengths = bind(inputs, feeds);
  const length = (dim: Dim): number => {
    const { coefficient, symbols } = factorsOf(dim);
    return symbols.reduce((product, symbol) => {
      const bound = lengths.get(symbol);
      if (bound === undefined) throw new Error(`evaluator: no input has the dimension "${symbol}"`);
      return product * bound;
    }, coefficient);
  };
  const shape = (dims: Shape): number[] => dims.map(length);
  const values = new Map<Value, Array64>();
  const arrayOf = (value: Value): Array64 => {
    const known = values.get(value) ?? (value.name === undefined ? undefined : feeds.get(value.name));
    if (known) return known;
    if (!value.constant) throw new Error(`evaluator: no feed for "${value.name}"`);
    return { shape: value.constant.shape, data: convert(value.constant, "float64").data };
  };
  const apply = <K extends OpType>(node: Node<K>): void => {
    const { op, attributes } = node;
    const results = evaluators[op]({ attributes, x: node.inputs.map(arrayOf), length, shape });
    node.outputs.forEach((value, i) => {
      const result = results[i];
      const expected = shape(value.shape);
      if (!result || String(result.shape) !== String(expected) || result.data.length !== count(expected)) {
        throw new Error(`evaluator: ${op} gave [${result?.shape}], inferred [${value.shape}]`);
      }
      values.set(value, result);
    });
  };
  for (const node of topological(outputs)) apply(node);
  return outputs.map(arrayOf);
}
