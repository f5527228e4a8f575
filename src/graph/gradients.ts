import { blocksOf, dequantizeBlocks } from "./ops/blocks.ts";
import {
  add,
  cast,
  concat,
  cos,
  div,
  equal,
  erf,
  exp,
  expand,
  fill,
  flattenRows,
  gather,
  gatherElements,
  less,
  lessOrEqual,
  log,
  matMul,
  mul,
  neg,
  pow,
  range,
  reciprocal,
  reduceMean,
  reduceSum,
  reshape,
  rotaryEmbedding,
  scatterElements,
  scatterND,
  sigmoid,
  sign,
  sin,
  slice,
  sqrt,
  sub,
  sumToShape,
  tanh,
  transpose,
  where,
} from "./ops.ts";
import { dimAt, timesDim } from "./shape.ts";
import { isOp, type Node, type OpType, topological, type Value } from "./value.ts";

/** What a rule is given: the node and the gradient of each output (absent where nothing depends on that output). */
interface RuleInput<K extends OpType> {
  readonly node: Node<K>;
  readonly x: readonly Value[];
  readonly y: readonly Value[];
  /** Gradient of the first output. */
  readonly g: Value;
  /** Whether input `i` needs a gradient. */
  needs(i: number): boolean;
}

/** Gradients of the inputs, in their order; absent where none is needed or none exists. */
type Rule<K extends OpType> = (r: RuleInput<K>) => readonly (Value | undefined)[];

const NO_GRADIENT = "no gradient";

function first(values: readonly Value[], index = 0): Value {
  const value = values[index];
  if (value === undefined) throw new Error(`graph: op has no operand ${index}`);
  return value;
}

/** A rule for one input. */
const unary =
  <K extends OpType>(derivative: (g: Value, x: Value, y: Value) => Value): Rule<K> =>
  ({ x, y, g }) => [derivative(g, first(x), first(y))];

/** A rule for two broadcast inputs. */
const binary =
  <K extends OpType>(
    left: (g: Value, a: Value, b: Value, y: Value) => Value,
    right: (g: Value, a: Value, b: Value, y: Value) => Value,
  ): Rule<K> =>
  ({ x, y, g, needs }) => {
    const [a, b, out] = [first(x), first(x, 1), first(y)];
    return [
      needs(0) ? sumToShape(left(g, a, b, out), a.shape) : undefined,
      needs(1) ? sumToShape(right(g, a, b, out), b.shape) : undefined,
    ];
  };

const lastAxis = (x: Value): number => x.shape.length - 1;
const keep = { keepDims: true } as const;

/** The reduced axes put back with length 1. */
function restoreAxes(g: Value, axes: readonly number[], keepDims: boolean, like: Value): Value {
  return keepDims
    ? g
    : reshape(
        g,
        like.shape.map((dim, i) => (axes.includes(i) ? 1 : dim)),
      );
}

/**
 * Norms: d/dx of `x̂ = (x − μ) r` seen through `u = g · weight`: `r (u − mean(u) − x̂ mean(u x̂))`, with the numbers of a
 * row gathered: `r u − s x + t`, where `s = r² mean(u x̂)` and `t = s μ − r mean(u)`.
 */
function normGradient(u: Value, x: Value, inverse: Value, mean?: Value): Value {
  const axes = { axes: [lastAxis(u)], ...keep };
  const ux = reduceMean(mul(u, x), axes); // mean(u x)
  if (!mean) return sub(mul(u, inverse), mul(x, mul(mul(inverse, inverse), mul(inverse, ux))));
  const meanU = reduceMean(u, axes);
  const s = mul(mul(inverse, inverse), mul(inverse, sub(ux, mul(mean, meanU))));
  return add(sub(mul(u, inverse), mul(x, s)), sub(mul(s, mean), mul(inverse, meanU)));
}

/** σ(αx). */
function gateOf(x: Value, alpha: number): Value {
  return sigmoid(alpha === 1 ? x : mul(x, alpha));
}

/** A value of the forward pass, or an equal one made from what is kept in any case: it costs less than its room. */
function rebuilt(value: Value): Value {
  const { node } = value;
  const [x] = node?.inputs ?? [];
  return isOp(node, "QuickGelu") && x ? mul(x, gateOf(x, node.attributes.alpha)) : value;
}

/**
 * The gradient of every op, as compositions of other ops. Complete by type. `NO_GRADIENT` marks ops whose outputs
 * are not differentiable (comparisons, indices) or depend on no input.
 */
const rules: { readonly [K in OpType]: Rule<K> | typeof NO_GRADIENT } = {
  Add: binary(
    (g) => g,
    (g) => g,
  ),
  Sub: binary(
    (g) => g,
    (g) => neg(g),
  ),
  Mul: binary(
    (g, _, b) => mul(g, rebuilt(b)),
    (g, a) => mul(g, rebuilt(a)),
  ),
  Div: binary(
    (g, _, b) => div(g, b),
    (g, _, b, y) => neg(mul(g, div(y, b))),
  ),
  // 0^b does not depend on b, though log 0 is infinite.
  Pow: binary(
    (g, a, b) => mul(g, mul(b, pow(a, sub(b, 1)))),
    (g, a, _, y) => where(equal(a, 0), 0, mul(g, mul(y, log(a)))),
  ),
  // At a tie the first operand takes the gradient.
  Min: binary(
    (g, a, b) => where(lessOrEqual(a, b), g, 0),
    (g, a, b) => where(less(b, a), g, 0),
  ),
  Max: binary(
    (g, a, b) => where(lessOrEqual(b, a), g, 0),
    (g, a, b) => where(less(a, b), g, 0),
  ),
  Neg: unary((g) => neg(g)),
  Exp: unary((g, _, y) => mul(g, y)),
  Log: unary((g, x) => div(g, x)),
  Sqrt: unary((g, _, y) => div(mul(g, 0.5), y)),
  Reciprocal: unary((g, _, y) => neg(mul(g, mul(y, y)))),
  Tanh: unary((g, _, y) => mul(g, sub(1, mul(y, y)))),
  Sigmoid: unary((g, _, y) => mul(g, mul(y, sub(1, y)))),
  Erf: unary((g, x) => mul(g, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI)))),
  Abs: unary((g, x) => mul(g, sign(x))),
  Sign: NO_GRADIENT,
  Identity: NO_GRADIENT, // that is what it is for
  Relu: unary((g, x) => where(lessOrEqual(x, 0), 0, g)),
  Sin: unary((g, x) => mul(g, cos(x))),
  Cos: unary((g, x) => neg(mul(g, sin(x)))),
  Gelu: ({ node, x, g }) => {
    const v = first(x);
    if (node.attributes.approximate === "none") {
      // Φ(x) + x φ(x) = (1 + erf u + 2/√π u exp(−u²)) / 2, u = x/√2
      const u = mul(v, Math.SQRT1_2);
      const density = mul(div(u, exp(mul(u, u))), 2 / Math.sqrt(Math.PI));
      return [mul(mul(g, add(add(erf(u), 1), density)), 0.5)];
    }
    // y = x (1 + tanh u) / 2, u = √(2/π) (x + 0.044715 x³)
    const k = Math.sqrt(2 / Math.PI);
    const square = mul(v, v);
    const t = tanh(mul(v, add(mul(square, 0.044715 * k), k)));
    const du = add(mul(square, 3 * 0.044715 * k), k);
    return [mul(g, mul(add(add(t, 1), mul(mul(v, sub(1, mul(t, t))), du)), 0.5))];
  },
  // y = x s, s = σ(αx): s + α y (1 − s)
  QuickGelu: ({ node, x, g }) => {
    const { alpha } = node.attributes;
    const s = gateOf(first(x), alpha);
    const slope = mul(mul(first(x), s), sub(1, s));
    return [mul(g, add(s, alpha === 1 ? slope : mul(slope, alpha)))];
  },
  Where: ({ x, g, needs }) => {
    const condition = first(x);
    return [
      undefined,
      needs(1) ? sumToShape(where(condition, g, 0), first(x, 1).shape) : undefined,
      needs(2) ? sumToShape(where(condition, 0, g), first(x, 2).shape) : undefined,
    ];
  },
  Equal: NO_GRADIENT,
  Less: NO_GRADIENT,
  LessOrEqual: NO_GRADIENT,
  And: NO_GRADIENT,
  Not: NO_GRADIENT,
  Cast: unary((g, x) => cast(g, x.dtype)),
  MatMul: ({ node, x, g, needs }) => {
    const { transA, transB, alpha } = node.attributes;
    const [a, b] = [first(x), first(x, 1)];
    const left = !needs(0)
      ? undefined
      : transA
        ? matMul(b, g, { transA: transB, transB: true, alpha })
        : matMul(g, b, { transB: !transB, alpha });
    let right: Value | undefined;
    if (needs(1)) {
      // A weight shared by all batches: one product over all rows instead of a sum of products.
      const shared = b.shape.length === 2 && a.shape.length > 2 && !transA;
      const [u, v] = shared ? [flattenRows(a), flattenRows(g)] : [a, g];
      right = transB
        ? matMul(v, u, { transA: true, transB: transA, alpha })
        : matMul(u, v, { transA: !transA, alpha });
    }
    return [left && sumToShape(left, a.shape), right && sumToShape(right, b.shape)];
  },
  Gemm: ({ x, g, needs }) => [
    needs(0) ? matMul(g, first(x, 1)) : undefined,
    needs(1) ? matMul(g, first(x), { transA: true }) : undefined,
    needs(2) ? reduceSum(g, { axes: [0] }) : undefined,
  ],
  Softmax: unary((g, _, y) => {
    const gy = mul(g, y);
    return sub(gy, mul(y, reduceSum(gy, { axes: [lastAxis(y)], ...keep })));
  }),
  LogSoftmax: unary((g, _, y) => sub(g, mul(exp(y), reduceSum(g, { axes: [lastAxis(y)], ...keep })))),
  LayerNormalization: ({ x, y, g, needs }) => {
    const [input, weight, bias] = [first(x), first(x, 1), first(x, 2)];
    const normalized = (): Value => mul(sub(input, first(y, 1)), first(y, 2));
    return [
      needs(0) ? normGradient(mul(g, weight), input, first(y, 2), first(y, 1)) : undefined,
      needs(1) ? sumToShape(mul(g, normalized()), weight.shape) : undefined,
      needs(2) ? sumToShape(g, bias.shape) : undefined,
    ];
  },
  // The inverse root is computed again: the second output of ONNX Runtime's operator is wrong on WebGPU.
  SimplifiedLayerNormalization: ({ node, x, g, needs }) => {
    const [input, weight] = [first(x), first(x, 1)];
    const meanSquare = reduceMean(mul(input, input), { axes: [lastAxis(input)], ...keep });
    const inverse = reciprocal(sqrt(add(meanSquare, node.attributes.epsilon)));
    return [
      needs(0) ? normGradient(mul(g, weight), input, inverse) : undefined,
      needs(1) ? sumToShape(mul(g, mul(input, inverse)), weight.shape) : undefined,
    ];
  },
  // A rotation's transpose is the rotation by the opposite angle.
  RotaryEmbedding: ({ x, g, needs }) => {
    if (needs(2) || needs(3)) throw new RangeError("RotaryEmbedding: no gradient of the cosines and sines");
    return [rotaryEmbedding(g, first(x, 1), first(x, 2), neg(first(x, 3)))];
  },
  Reshape: unary((g, x) => reshape(g, x.shape)),
  Transpose: ({ node, g }) => {
    const { perm } = node.attributes;
    return [
      transpose(
        g,
        perm.map((_, i) => perm.indexOf(i)),
      ),
    ];
  },
  Slice: ({ node, x, g }) => {
    const { axis, start, end } = node.attributes;
    const { shape, dtype } = first(x);
    const whole = dimAt(shape, axis);
    if (typeof whole !== "number") {
      if (end - start !== 1)
        throw new RangeError(
          `Slice: no gradient of ${end - start} elements along symbolic axis ${axis} of [${shape}]`,
        );
      const chosen = reshape(
        equal(range(whole), start),
        shape.slice(axis).map((_, i) => (i === 0 ? whole : 1)),
      );
      return [where(chosen, g, 0)];
    }
    const padding = (length: number): Value =>
      fill(
        shape.map((dim, i) => (i === axis ? length : dim)),
        0,
        dtype,
      );
    const parts = [...(start > 0 ? [padding(start)] : []), g, ...(end < whole ? [padding(whole - end)] : [])];
    return [parts.length === 1 ? g : concat(parts, axis)];
  },
  Concat: ({ node, x, g, needs }) => {
    let start = 0;
    return x.map((part, i) => {
      const length = dimAt(part.shape, node.attributes.axis);
      if (typeof length !== "number") {
        throw new RangeError(
          `Concat: no gradient along symbolic axis ${node.attributes.axis} of [${part.shape}]`,
        );
      }
      start += length;
      return needs(i) ? slice(g, node.attributes.axis, start - length, start) : undefined;
    });
  },
  Split: NO_GRADIENT, // of decoding, which is not trained
  Expand: unary((g, x) => sumToShape(g, x.shape)),
  Fill: NO_GRADIENT,
  DimSize: NO_GRADIENT,
  Range: NO_GRADIENT,
  ReduceSum: ({ node, x, g }) => {
    const { axes, keepDims } = node.attributes;
    return [expand(restoreAxes(g, axes, keepDims, first(x)), first(x).shape)];
  },
  ReduceMean: ({ node, x, g }) => {
    const { axes, keepDims } = node.attributes;
    const input = first(x);
    const count = timesDim(...axes.map((axis) => dimAt(input.shape, axis)));
    if (typeof count !== "number")
      throw new RangeError(`ReduceMean: no gradient over symbolic axes of [${input.shape}]`);
    return [expand(restoreAxes(mul(g, 1 / count), axes, keepDims, input), input.shape)];
  },
  // Ties share the gradient equally.
  ReduceMax: ({ node, x, y, g }) => {
    const { axes, keepDims } = node.attributes;
    const input = first(x);
    const isMax = cast(equal(input, restoreAxes(first(y), axes, keepDims, input)), input.dtype);
    const share = div(restoreAxes(g, axes, keepDims, input), reduceSum(isMax, { axes, ...keep }));
    return [mul(isMax, share)];
  },
  // Axis 0 only, the embedding look-up: rows add up where an index repeats.
  Gather: ({ node, x, g }) => {
    const [table, indices] = [first(x), first(x, 1)];
    if (node.attributes.axis !== 0 || table.shape.length !== 2) {
      throw new RangeError(
        `Gather: gradient is defined for axis 0 of a matrix, got axis ${node.attributes.axis} of [${table.shape}]`,
      );
    }
    const count = timesDim(...indices.shape);
    const rows = reshape(g, [count, dimAt(table.shape, 1)]);
    return [scatterND(fill(table.shape, 0, table.dtype), reshape(indices, [count, 1]), rows)];
  },
  GatherElements: ({ node, x, g }) => {
    const [table, indices] = [first(x), first(x, 1)];
    return [scatterElements(fill(table.shape, 0, table.dtype), indices, g, node.attributes.axis)];
  },
  ScatterElements: ({ node, x, g, needs }) => [
    g,
    undefined,
    needs(2) ? gatherElements(g, first(x, 1), node.attributes.axis) : undefined,
  ],
  ScatterND: ({ x, g, needs }) => {
    const indices = first(x, 1);
    return [g, undefined, needs(2) ? gather(g, reshape(indices, indices.shape.slice(0, -1)), 0) : undefined];
  },
  ArgMax: NO_GRADIENT,
  After: ({ g }) => [g, undefined],
  DequantizeBlocks: NO_GRADIENT, // of whole levels
  DequantizeHalf: NO_GRADIENT,
  MatMulNBits: ({ x, g }) => [matMul(g, dequantizeBlocks(blocksOf(x.slice(1))))],
};

/** Whether an op has a gradient rule. */
export function isDifferentiable(op: OpType): boolean {
  return rules[op] !== NO_GRADIENT;
}

const isFloat = ({ dtype }: Value): boolean =>
  dtype === "float32" || dtype === "float64" || dtype === "float16" || dtype === "bfloat16";

function ruleOf<K extends OpType>(op: K): Rule<K> | typeof NO_GRADIENT {
  return rules[op];
}

/**
 * Reverse-mode gradients of a scalar with respect to `wrt`, in its order. A value that the scalar does not depend on
 * gets zeros. Nothing is built below the lowest value of `wrt`.
 */
export function gradients(scalar: Value, wrt: readonly Value[]): Value[] {
  if (scalar.shape.length !== 0)
    throw new RangeError(`gradients: needs a scalar, got shape [${scalar.shape}]`);
  const order = topological([scalar]);
  const active = new Set<Value>(wrt);
  // Inputs of one name are one input.
  const named = new Map(
    wrt.flatMap((value) => (value.name === undefined ? [] : [[value.name, value] as const])),
  );
  const known = (value: Value): Value =>
    value.name === undefined ? value : (named.get(value.name) ?? value);
  const reached: Node[] = [];
  for (const node of order) {
    if (!isDifferentiable(node.op) || !node.inputs.some((value) => active.has(known(value)))) continue;
    reached.push(node);
    for (const output of node.outputs) if (isFloat(output)) active.add(output);
  }
  const total = new Map<Value, Value>([[scalar, fill([], 1, scalar.dtype)]]);
  for (const node of reached.reverse()) {
    const rule = ruleOf(node.op);
    const y = first(node.outputs);
    if (node.outputs.some((output) => output !== y && total.has(output)))
      throw new RangeError(`gradients: ${node.op} has a gradient through its first output only`);
    const g = total.get(y);
    if (rule === NO_GRADIENT || g === undefined) continue;
    const needs = (i: number): boolean => active.has(known(first(node.inputs, i)));
    const contributions = rule({ node, x: node.inputs, y: node.outputs, g, needs });
    node.inputs.forEach((operand, i) => {
      const value = known(operand);
      const contribution = contributions[i];
      if (!contribution || !active.has(value)) return;
      const sum = total.get(value);
      total.set(value, sum ? add(sum, contribution) : contribution);
    });
  }
  return wrt.map((value) => total.get(value) ?? fill(value.shape, 0, value.dtype));
}
