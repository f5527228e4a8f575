import { convert } from "../../tensor/convert.ts";
import { expand, fill, mul, neg, reshape, scalar, scatterElements, scatterND } from "../ops.ts";
import { sameShape } from "../shape.ts";
import { constantKey, isOp, type Node, type OpType, topological, type Value } from "../value.ts";

/** Ops that broadcast their operands themselves. */
const broadcasting: ReadonlySet<OpType> = new Set<OpType>([
  ...(["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"] as const),
  ...(["Where", "Equal", "Less", "LessOrEqual"] as const),
]);

/** The number that every element of a value equals, where that is known. */
function uniform(value: Value): number | undefined {
  if (isOp(value.node, "Fill")) return value.node.attributes.value;
  if (isOp(value.node, "Expand") || isOp(value.node, "Reshape")) {
    const [inner] = value.node.inputs;
    return inner && uniform(inner);
  }
  const { constant } = value;
  return constant?.data.length === 1 ? convert(constant, "float64").data[0] : undefined;
}

/** `scatter(zeros, indices, updates)`: a matrix that holds few numbers. */
interface Sparse {
  readonly updates: Value;
  /** The axis along which elements were scattered; absent for whole rows. */
  readonly axis?: number;
  /** The same scatter over another matrix. */
  over(target: Value): Value;
}

function sparse(value: Value | undefined): Sparse | undefined {
  const [target, indices, updates] = value?.node?.inputs ?? [];
  if (!value || !target || !indices || !updates) return undefined;
  if (isOp(value.node, "ScatterElements") && uniform(target) === 0) {
    const { axis } = value.node.attributes;
    return { updates, axis, over: (other) => scatterElements(other, indices, updates, axis) };
  }
  if (isOp(value.node, "ScatterND") && uniform(target) === 0) {
    return { updates, over: (other) => scatterND(other, indices, updates) };
  }
  return undefined;
}

/** A value without an expansion that a broadcasting consumer does itself. */
function unexpanded(value: Value): Value {
  const number = value.shape.length > 0 && value.node ? uniform(value) : undefined;
  if (number !== undefined) return scalar(number, value.dtype);
  return isOp(value.node, "Expand") ? (value.node.inputs[0] ?? value) : value;
}

/** Operands of a node; those that another operand broadcasts to the full shape are left small. */
function operands(node: Node, inputs: readonly Value[]): readonly Value[] {
  const shape = node.outputs[0]?.shape;
  if (!shape || !broadcasting.has(node.op)) return inputs;
  const lean = [...inputs];
  inputs.forEach((value, i) => {
    const others = lean.filter((_, j) => j !== i);
    if (others.some((other) => sameShape(other.shape, shape))) lean[i] = unexpanded(value);
  });
  return lean;
}

const folded: { readonly [op: string]: (a: number, b: number) => number } = {
  Add: (a, b) => a + b,
  Sub: (a, b) => a - b,
  Mul: (a, b) => a * b,
};

/** The value that equals the first output of an elementwise node with one operand known to be 0 or 1. */
function identity(node: Node, a: Value, b: Value, out: Value): Value | undefined {
  const [ua, ub] = [uniform(a), uniform(b)];
  const whole = (value: Value): Value | undefined =>
    sameShape(value.shape, out.shape) ? value : expand(value, out.shape);
  const fold = folded[node.op];
  if (fold && ua !== undefined && ub !== undefined) return fill(out.shape, fold(ua, ub), out.dtype);
  switch (node.op) {
    case "Mul":
      if (ua === 0 || ub === 0) return fill(out.shape, 0, out.dtype);
      if (ub === 1) return whole(a);
      return ua === 1 ? whole(b) : undefined;
    case "Add":
      if (ub === 0) return whole(a);
      return ua === 0 ? whole(b) : undefined;
    case "Sub":
      if (ub === 0) return whole(a);
      return ua === 0 ? whole(neg(b)) : undefined;
    case "Div":
    case "Pow":
      return ub === 1 ? whole(a) : undefined;
    default:
      return undefined;
  }
}

/** `x + scatter(0, i, u) = scatter(x, i, u)`, and so for differences. */
function scattered(node: Node, a: Value, b: Value, out: Value): Value | undefined {
  const full = (value: Value): boolean => sameShape(value.shape, out.shape);
  if (isOp(node, "Add")) {
    const right = full(a) && full(b) ? sparse(b) : undefined;
    if (right) return right.over(a);
    return full(b) && full(a) ? sparse(a)?.over(b) : undefined;
  }
  return isOp(node, "Sub") && full(a) ? sparse(a)?.over(expand(negated(b) ?? neg(b), out.shape)) : undefined;
}

/** One local rewrite: the value that replaces the node's first output, or nothing. */
function rewrite(node: Node, [a, b]: readonly Value[]): Value | undefined {
  const [out] = node.outputs;
  if (!out || !a) return undefined;
  if (b) return identity(node, a, b, out) ?? scattered(node, a, b, out);
  if (isOp(node, "Neg")) {
    const number = uniform(a);
    if (number !== undefined) return fill(out.shape, -number, out.dtype);
    return isOp(a.node, "Neg") ? a.node.inputs[0] : negated(a);
  }
  if (isOp(node, "Reshape") && isOp(a.node, "Reshape")) {
    const [inner] = a.node.inputs;
    return inner && reshape(inner, node.attributes.shape);
  }
  if (isOp(node, "Expand") && isOp(a.node, "Expand")) {
    const [inner] = a.node.inputs;
    return inner && expand(inner, node.attributes.shape);
  }
  if (isOp(node, "ReduceSum")) {
    // A row that holds one scattered element sums to that element.
    const found = sparse(a);
    const { axes } = node.attributes;
    if (found?.axis !== undefined && sameShape(axes, [found.axis]) && found.updates.shape[found.axis] === 1) {
      return reshape(found.updates, out.shape);
    }
  }
  return undefined;
}

/** `-(a b)` with the sign on the smaller factor, where one is smaller. */
function negated(value: Value): Value | undefined {
  if (!isOp(value.node, "Mul")) return undefined;
  const [a, b] = value.node.inputs;
  if (!a || !b) return undefined;
  if (!sameShape(b.shape, value.shape)) return mul(a, neg(b));
  return sameShape(a.shape, value.shape) ? undefined : mul(neg(a), b);
}

/** Numbers that JSON has not, told apart. */
function exactNumber(_: string, value: unknown): unknown {
  return typeof value === "number" && (Object.is(value, -0) || !Number.isFinite(value))
    ? `number ${Object.is(value, -0) ? "-0" : value}`
    : value;
}

/**
 * Local algebra and common subexpressions: products with one, sums with zero, expansions that broadcasting makes
 * needless, sparse gradients of look-ups folded into their sums, and each value computed once. A product with a known
 * zero is zero, also where the other factor is not finite. Returns the outputs of an equal graph, in their order.
 */
export function simplify(outputs: readonly Value[]): Value[] {
  const replaced = new Map<Value, Value>();
  const known = new Map<string, readonly Value[]>();
  const leaves = new Map<string, Value>();
  const ids = new Map<Value, number>();
  const done = new Set<Node>();
  const current = (value: Value): Value => {
    const found = replaced.get(value);
    if (found) return found;
    const key =
      value.name === undefined ? value.constant && constantKey(value.constant) : `input ${value.name}`;
    if (key === undefined) return value;
    const shared = leaves.get(key) ?? value;
    leaves.set(key, shared);
    return shared;
  };
  /** Identity of a node up to its inputs: equal keys compute equal values. */
  const keyOf = (node: Node, inputs: readonly Value[]): string => {
    const numbers = inputs.map((value) => {
      const id = ids.get(value) ?? ids.size;
      ids.set(value, id);
      return id;
    });
    return `${node.op}|${JSON.stringify(node.attributes, exactNumber)}|${numbers}`;
  };
  /** Simplifies what a rewrite has made; all below it is done. */
  const settle = (value: Value): Value => {
    if (value.node && !done.has(value.node)) {
      value.node.inputs.forEach(settle);
      visit(value.node);
    }
    return current(value);
  };
  const visit = (node: Node): void => {
    const inputs = operands(node, node.inputs.map(current)).map(settle);
    const better = rewrite(node, inputs);
    if (better) {
      replaceFirst(node, settle(better));
      done.add(node);
      return;
    }
    const key = keyOf(node, inputs);
    let values = known.get(key);
    if (!values) {
      const unchanged = inputs.every((value, i) => value === node.inputs[i]);
      values = unchanged ? node.outputs : copyWith(node, inputs);
      known.set(key, values);
      for (const value of values) if (value.node) done.add(value.node);
    }
    node.outputs.forEach((value, i) => {
      const to = values[i];
      if (to && to !== value) replaced.set(value, to);
    });
    done.add(node);
  };
  const replaceFirst = (node: Node, to: Value): void => {
    const [output] = node.outputs;
    if (output && output !== to) replaced.set(output, to);
  };
  for (const node of topological(outputs)) if (!done.has(node)) visit(node);
  return outputs.map(current);
}

function copyWith(node: Node, inputs: readonly Value[]): readonly Value[] {
  const values: Value[] = [];
  const copy: Node = { op: node.op, attributes: node.attributes, inputs, outputs: values };
  for (const { dtype, shape } of node.outputs) values.push({ dtype, shape, node: copy });
  return values;
}
