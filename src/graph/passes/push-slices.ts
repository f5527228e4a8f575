import {
  gemm,
  layerNormalization,
  matMul,
  reshape,
  simplifiedLayerNormalization,
  slice,
  transpose,
} from "../ops.ts";
import { dimAt, type Shape, sameShape, timesDim } from "../shape.ts";
import { applyOp, isOp, type Node, type OpType, topological, type Value } from "../value.ts";
import { simplify } from "./simplify.ts";

/** Ops whose output element depends on the elements at the same place of their broadcast operands. */
const elementwise: ReadonlySet<OpType> = new Set<OpType>([
  ...(["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "Less", "LessOrEqual"] as const),
  ...(["And", "Not", "Cast", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Tanh", "Sigmoid", "Erf"] as const),
  ...(["Abs", "Sign", "Identity", "Relu", "Sin", "Cos", "Gelu", "QuickGelu"] as const),
]);

interface Part {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
}

const cut = (x: Value, { axis, start, end }: Part): Value => slice(x, axis, start, end);

/** The part of a broadcast operand that a part of the result of rank `rank` reads. */
function cutOperand(x: Value, part: Part, rank: number): Value {
  const axis = part.axis - (rank - x.shape.length);
  return axis < 0 || x.shape[axis] === 1 ? x : cut(x, { ...part, axis });
}

/**
 * A part of a linear layer that is written as `reshape(gemm(reshape(x, [rows, in]), w, b))`, cut along one of the axes
 * that the rows merge.
 */
function cutLinear(out: Value, shape: Shape, gemmed: Value, part: Part): Value | undefined {
  if (!isOp(gemmed.node, "Gemm")) return undefined;
  const [flat, weight, bias] = gemmed.node.inputs;
  const [x] = isOp(flat?.node, "Reshape") ? flat.node.inputs : [];
  if (!flat || !x || !weight || !bias) return undefined;
  const outer = part.axis + 1;
  const merged =
    out.shape.findIndex((_, i) => timesDim(...out.shape.slice(0, i + 1)) === dimAt(gemmed.shape, 0)) + 1;
  if (merged < outer || !sameShape(x.shape.slice(0, outer), out.shape.slice(0, outer))) return undefined;
  const rows = timesDim(...shape.slice(0, merged));
  return reshape(gemm(reshape(cut(x, part), [rows, dimAt(flat.shape, 1)]), weight, bias), shape);
}

/** The part of `out`, computed from parts of the operands of its node; undefined where that needs the whole. */
function pushed(out: Value, node: Node, part: Part): Value | undefined {
  const { axis } = part;
  const [a, b, c] = node.inputs;
  const last = out.shape.length - 1;
  if (!a || node.outputs[0] !== out) return undefined;
  if (elementwise.has(node.op)) {
    const shape = out.shape.map((dim, i) => (i === axis ? part.end - part.start : dim));
    const operands = node.inputs.map((value) => cutOperand(value, part, out.shape.length));
    return applyOp(node.op, node.attributes, operands, [{ dtype: out.dtype, shape }])[0];
  }
  if (isOp(node, "Transpose")) {
    const { perm } = node.attributes;
    return transpose(cut(a, { ...part, axis: perm[axis] ?? axis }), perm);
  }
  if (isOp(node, "Reshape")) {
    const shape = out.shape.map((dim, i) => (i === axis ? part.end - part.start : dim));
    const outer = axis + 1;
    if (sameShape(a.shape.slice(0, outer), out.shape.slice(0, outer))) return reshape(cut(a, part), shape);
    return cutLinear(out, shape, a, part);
  }
  if (axis === last) return undefined;
  if (isOp(node, "Softmax") || isOp(node, "LogSoftmax")) {
    const x = cut(a, part);
    return applyOp(node.op, node.attributes, [x], [x])[0];
  }
  if (isOp(node, "LayerNormalization") && b && c)
    return layerNormalization(cut(a, part), b, c, node.attributes.epsilon);
  if (isOp(node, "SimplifiedLayerNormalization") && b)
    return simplifiedLayerNormalization(cut(a, part), b, node.attributes.epsilon);
  if (isOp(node, "MatMul") && b) {
    const { transA } = node.attributes;
    if (axis === last - 1) return matMul(cut(a, { ...part, axis: transA ? last : axis }), b, node.attributes);
    return matMul(cutOperand(a, part, last + 1), cutOperand(b, part, last + 1), node.attributes);
  }
  return undefined;
}

/**
 * Computes only the rows that are read: a slice of a row-wise computation becomes the computation of the slice, as far
 * up as nothing else reads the whole. A classifier that reads the first token then runs the last block's queries and
 * feed-forward layers for that token alone, and so does the backward pass that is derived from it. Returns the outputs
 * of an equal graph, in their order.
 */
export function pushSlices(outputs: readonly Value[]): Value[] {
  let current = simplify(outputs);
  for (;;) {
    const nodes = topological(current);
    const uses = new Map<Value, number>();
    const use = (value: Value): void => {
      uses.set(value, (uses.get(value) ?? 0) + 1);
    };
    for (const node of nodes) node.inputs.forEach(use);
    current.forEach(use);
    const replacements = new Map<Value, Value>();
    for (const node of nodes) {
      const [x] = node.inputs;
      const [out] = node.outputs;
      if (!isOp(node, "Slice") || !x?.node || !out) continue;
      if (x.node.outputs.some((value) => (uses.get(value) ?? 0) > (value === x ? 1 : 0))) continue;
      const better = pushed(x, x.node, node.attributes);
      if (better) replacements.set(out, better);
    }
    if (replacements.size === 0) return current;
    current = simplify(replaced(current, replacements));
  }
}

/** The graph with some values replaced. */
function replaced(outputs: readonly Value[], replacements: ReadonlyMap<Value, Value>): Value[] {
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  const renew = (node: Node): void => {
    const inputs = node.inputs.map(now);
    if (node.outputs.some((value) => renewed.has(value))) return;
    if (inputs.every((value, i) => value === node.inputs[i])) return;
    applyOp(node.op, node.attributes, inputs, node.outputs).forEach((value, i) => {
      const old = node.outputs[i];
      if (old) renewed.set(old, value);
    });
  };
  for (const [old, value] of replacements) {
    for (const node of topological([value])) renew(node);
    renewed.set(old, now(value));
  }
  for (const node of topological(outputs)) renew(node);
  return outputs.map(now);
}
