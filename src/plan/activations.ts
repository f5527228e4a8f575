import { factorsOf, type Shape } from "../graph/shape.ts";
import { isOp, type Node, type OpType, topological, type Value } from "../graph/value.ts";
import { byteSize } from "../tensor/dtype.ts";

/** Lengths of the symbols in shapes. */
export type Lengths = ReadonlyMap<string, number>;

/** Ops whose result is the memory of their first operand. */
const views: ReadonlySet<OpType> = new Set<OpType>(["Reshape", "After", "Identity"]);
/** Ops that may write over an operand of the size of their result. */
const overwriting: ReadonlySet<OpType> = new Set<OpType>([
  ...(["Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Tanh", "Sigmoid"] as const),
  ...(["Erf", "Abs", "Relu", "Gelu", "QuickGelu", "ScatterElements", "ScatterND"] as const),
]);

/**
 * The most bytes that the values of a graph take at one time, beside its inputs, where each node is computed as ONNX Runtime
 * orders them. Throws RangeError where a symbol has no length.
 */
export function peakActivations(outputs: readonly Value[], lengths: Lengths): number {
  const elements = (shape: Shape): number =>
    shape
      .map(factorsOf)
      .reduce(
        (size, { coefficient, symbols }) =>
          symbols.reduce((product, symbol) => product * lengthOf(symbol, lengths), size * coefficient),
        1,
      );
  const bytesOf = ({ shape, dtype }: Value): number => elements(shape) * byteSize(dtype);
  const order = executionOrder(outputs);
  const owner = new Map<Value, Value>();
  const rootOf = (value: Value): Value => owner.get(value) ?? value;
  const uses = new Map<Value, number>();
  for (const node of order) {
    const [x] = node.inputs;
    const [y] = node.outputs;
    if (views.has(node.op) && x && y) owner.set(y, rootOf(x));
    for (const value of node.inputs) uses.set(rootOf(value), (uses.get(rootOf(value)) ?? 0) + 1);
  }
  for (const value of outputs) uses.set(rootOf(value), Number.POSITIVE_INFINITY);
  const held = new Map<Value, number>();
  let live = 0;
  let peak = 0;
  for (const node of order) {
    const operands = [...new Set(node.inputs.map(rootOf))];
    for (const value of node.inputs) uses.set(rootOf(value), (uses.get(rootOf(value)) ?? 0) - 1);
    if (views.has(node.op)) continue;
    const free = operands.filter((value) => uses.get(value) === 0 && held.has(value));
    for (const value of node.outputs) {
      if (!uses.has(value) && value !== node.outputs[0]) continue;
      const size = bytesOf(value);
      const place = overwriting.has(node.op) ? free.find((operand) => held.get(operand) === size) : undefined;
      if (place) {
        free.splice(free.indexOf(place), 1);
        held.delete(place);
      } else live += size;
      held.set(value, size);
    }
    peak = Math.max(peak, live + workspace(node, elements));
    for (const value of [...free, ...node.outputs.filter((output) => !uses.has(output))]) {
      live -= held.get(value) ?? 0;
      held.delete(value);
    }
  }
  return peak;
}

function lengthOf(symbol: string, lengths: Lengths): number {
  const length = lengths.get(symbol);
  if (length === undefined) throw new RangeError(`plan: no length is given for "${symbol}"`);
  return length;
}

/** Bytes that a node takes while it runs, beside its operands and results. */
function workspace(node: Node, elements: (shape: Shape) => number): number {
  const [x, second] = node.inputs;
  // The matrix in float32, where its levels are fed.
  if (isOp(node, "MatMulNBits") && second && !second.constant) return 8 * elements(second.shape);
  // Levels in bytes, before they are scaled.
  if (isOp(node, "DequantizeHalf") && x) return elements(x.shape);
  // A copy of the bits under another type.
  if (isOp(node, "Cast") && x?.dtype === "bfloat16") return 2 * elements(x.shape);
  return 0;
}

/**
 * The order in which ONNX Runtime computes the nodes of a graph: depth first from the last results back, of several
 * operands that of the later node first.
 */
function executionOrder(outputs: readonly Value[]): Node[] {
  const nodes = topological(outputs);
  const place = new Map(nodes.map((node, i) => [node, i] as const));
  const read = new Set(nodes.flatMap((node) => node.inputs.flatMap(({ node: from }) => from ?? [])));
  const stack = nodes.filter((node) => !read.has(node)).map((node) => ({ node, isDone: false }));
  const entered = new Set<Node>();
  const order: Node[] = [];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { node, isDone } = top;
    if (isDone) {
      order.push(node);
      continue;
    }
    if (entered.has(node)) continue;
    entered.add(node);
    stack.push({ node, isDone: true });
    const before = [...new Set(node.inputs.flatMap(({ node: from }) => from ?? []))];
    before.sort((a, b) => (place.get(a) ?? 0) - (place.get(b) ?? 0));
    for (const from of before) if (!entered.has(from)) stack.push({ node: from, isDone: false });
  }
  return order;
}
