import { after } from "../ops/after.ts";
import { BLOCK, type Blocks, blocksOf, dequantizeHalf, matMulNBits } from "../ops/four-bit.ts";
import { add, cast, concat, flattenRows, gather, matMul, mul, reshape, slice, sub } from "../ops.ts";
import { dimAt } from "../shape.ts";
import { applyOp, isOp, type Node, type OpType, topological, type Value } from "../value.ts";

const widening: ReadonlySet<OpType> = new Set<OpType>(["Cast", "Reshape", "DequantizeBlocks"]);

/** A graph input that weights are held in: floats of 16 bits, levels of four. */
function isHeld({ name, dtype }: Value): boolean {
  return name !== undefined && (dtype === "float16" || dtype === "bfloat16" || dtype === "uint8");
}

/** Whether a value is a weight that is held in fewer bits than are computed with, made wide. */
function isWidened({ node }: Value): boolean {
  return (
    node !== undefined &&
    widening.has(node.op) &&
    node.inputs.every((value) => isHeld(value) || isWidened(value))
  );
}

/** The widened value computed anew, from weights that wait for `cause`. */
function widened(value: Value, cause: Value | undefined): Value {
  const { node } = value;
  if (isHeld(value) || node === undefined) return cause ? after(value, cause) : value;
  const inputs = node.inputs.map((operand) => widened(operand, cause));
  return applyOp(node.op, node.attributes, inputs, node.outputs)[0] ?? value;
}

/** The blocks of a matrix, of which all waits for `cause`. */
function blocksAfter(matrix: Node<"DequantizeBlocks">, cause: Value): Blocks {
  const { levels, scales, offsets } = blocksOf(matrix.inputs);
  return {
    levels: widened(levels, cause),
    scales: widened(scales, cause),
    offsets: widened(offsets, cause),
  };
}

/**
 * `g W` for g [..., out] and W [out, in] in blocks: the even columns of W, then the odd ones, so that half of W is wide at a
 * time; what the offsets take is one number a block.
 */
function backward(g: Value, matrix: Node<"DequantizeBlocks">): Value {
  const rows = flattenRows(g); // [R, out]
  const count = dimAt(rows.shape, 0);
  const blocks = blocksAfter(matrix, rows);
  const even = matMul(rows, dequantizeHalf(blocks, "even")); // [R, in / 2]
  const later = { ...blocks, levels: widened(blocksOf(matrix.inputs).levels, even) };
  const odd = matMul(rows, dequantizeHalf(later, "odd"));
  const from = 2 * Number(dimAt(even.shape, 1));
  const pairs = [even, odd].map((half) => reshape(half, [count, from / 2, 1]));
  const products = reshape(concat(pairs, 2), [count, from / BLOCK, BLOCK]);
  const taken = reshape(matMul(rows, blocks.offsets), [count, from / BLOCK, 1]);
  return reshape(sub(products, taken), [...g.shape.slice(0, -1), from]);
}

/** A product with a matrix in blocks; undefined where it has another form. */
function product(node: Node, operands: readonly Value[]): Value | undefined {
  const [x, w, bias] = operands;
  if (!x || !w || !isOp(w.node, "DequantizeBlocks") || isWidened(x)) return undefined;
  if (isOp(node, "Gemm") && bias) return add(matMulNBits(x, blocksAfter(w.node, x)), bias);
  if (!isOp(node, "MatMul") || node.attributes.transA || x.shape.length < 2) return undefined;
  const { transB, alpha } = node.attributes;
  const y = transB ? matMulNBits(x, blocksAfter(w.node, x)) : backward(x, w.node);
  return alpha === 1 ? y : mul(y, alpha);
}

/** Numbers of a matrix that are wide at a time, where a matrix has more than twice as many. */
const AT_ONCE = 2 ** 23;

/** The rows of a large matrix of 16-bit floats in parts, one after the other: an output layer over a vocabulary. */
function partsOf(weight: Value): { readonly narrow: Value; readonly bounds: readonly number[] } | undefined {
  const [narrow] = weight.node?.inputs ?? [];
  const [out, from] = weight.shape.map(Number);
  if (!isOp(weight.node, "Cast") || !narrow || !isHeld(narrow) || !out || !from || weight.shape.length !== 2)
    return undefined;
  if (out * from <= 2 * AT_ONCE) return undefined;
  const rows = Math.ceil(out / Math.ceil((out * from) / AT_ONCE));
  const bounds = Array.from({ length: Math.ceil(out / rows) + 1 }, (_, i) => Math.min(out, i * rows));
  return { narrow, bounds };
}

/** A product with a large matrix, of which some rows are wide at a time. */
function inParts(node: Node, [x, w]: readonly Value[]): Value | undefined {
  if (!isOp(node, "MatMul") || node.attributes.transA || !x || !w || isWidened(x)) return undefined;
  const parts = partsOf(w);
  if (!parts) return undefined;
  const { transB, alpha } = node.attributes;
  const { narrow, bounds } = parts;
  const products: Value[] = [];
  for (const [i, start] of bounds.slice(0, -1).entries()) {
    const end = bounds[i + 1] ?? start;
    const some = cast(slice(after(narrow, products.at(-1) ?? x), 0, start, end), x.dtype);
    const own = transB ? x : slice(x, -1, start, end);
    const product = matMul(own, some, { transB, alpha });
    const before = transB ? undefined : products.at(-1);
    products.push(before ? add(before, product) : product);
  }
  return transB ? concat(products, -1) : products.at(-1);
}

/** Rows of a table that is widened become the widened rows. */
function rows(node: Node, [table, indices]: readonly Value[]): Value | undefined {
  if (!isOp(node, "Gather") || node.attributes.axis !== 0 || !table || !indices) return undefined;
  const [narrow] = table.node?.inputs ?? [];
  if (!isOp(table.node, "Cast") || !narrow || !isHeld(narrow)) return undefined;
  return cast(gather(narrow, indices), table.node.attributes.to);
}

/**
 * Weights that are held in 16 or 4 bits are made wide at each use, and not before: a layer's weights are wide while the layer
 * is computed, forward and again backward, and never those of all layers. Products with four-bit matrices become products
 * of their blocks. Returns the outputs of an equal graph, in their order; to be run last, since common subexpressions would
 * be joined again.
 */
export function widenLate(outputs: readonly Value[]): Value[] {
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  for (const node of topological(outputs)) {
    const [out] = node.outputs;
    if (out === undefined || isWidened(out)) continue;
    const operands = node.inputs.map(now);
    const better = product(node, operands) ?? rows(node, operands) ?? inParts(node, operands);
    if (better) {
      renewed.set(out, better);
      continue;
    }
    const cause = operands.find((value) => value.constant === undefined && !isWidened(value));
    const wide = operands.map((value) => (isWidened(value) ? widened(value, cause) : value));
    if (wide.every((value, i) => value === node.inputs[i])) continue;
    applyOp(node.op, node.attributes, wide, node.outputs).forEach((value, i) => {
      const old = node.outputs[i];
      if (old) renewed.set(old, value);
    });
  }
  return outputs.map((value) => (isWidened(value) ? widened(value, undefined) : now(value)));
}
