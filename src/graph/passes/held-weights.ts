import { widen } from "../../tensor/convert.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { Params } from "../../tensor/params.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { after } from "../ops/after.ts";
import {
  type Activations,
  BLOCK,
  type Blocks,
  blocksOf,
  dequantizeBlocks,
  dequantizeHalf,
  type FourBitBlocks,
  isFourBit,
  matMulNBits,
} from "../ops/blocks.ts";
import { add, cast, concat, flattenRows, gather, matMul, mul, reshape, slice, sub } from "../ops.ts";
import { dimAt, timesDim } from "../shape.ts";
import { applyOp, constant, isOp, type Node, type OpType, topological, type Value } from "../value.ts";

/** Weights that a graph holds, so that ONNX Runtime packs them once. */
export interface PackedWeights {
  /** Levels, scales and offsets by the names of their graph inputs. */
  readonly blocks: Params;
  /** How the rows are rounded that blocks are multiplied with. Matrices of eight bits are packed for "int8" alone. */
  readonly activations: Activations;
}

const widening: ReadonlySet<OpType> = new Set<OpType>(["Cast", "Reshape", "DequantizeBlocks"]);

const heldTypes: ReadonlySet<DType> = new Set<DType>(["float16", "bfloat16", "uint8"]);

/** A graph input that weights are held in: floats of 16 bits, levels of four or eight. */
function isHeld({ name, dtype }: Value): boolean {
  return name !== undefined && heldTypes.has(dtype);
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
function blocksAfter({ levels, scales, offsets }: FourBitBlocks, cause: Value): FourBitBlocks {
  return {
    levels: widened(levels, cause),
    scales: widened(scales, cause),
    offsets: widened(offsets, cause),
  };
}

/** The numbers of a graph input, in the type that they are cast to; undefined where it is fed. */
function packedTensor({ name, node }: Value, packed: PackedWeights): Tensor | undefined {
  if (name !== undefined) return packed.blocks.get(name);
  const [narrow] = node?.inputs ?? [];
  const found = isOp(node, "Cast") && narrow ? packedTensor(narrow, packed) : undefined;
  return found && widen(found);
}

/** The blocks of a matrix as constants; undefined where they are fed. */
function packedBlocks({ levels, scales, offsets }: Blocks, packed: PackedWeights): Blocks | undefined {
  if (!offsets && packed.activations !== "int8") return undefined;
  const [q, d, o] = [levels, scales, offsets].map((part) => part && packedTensor(part, packed));
  if (!q || !d || (offsets && !o)) return undefined;
  return { levels: constant(q), scales: constant(d), ...(o && { offsets: constant(o) }) };
}

/**
 * `g W` for g [..., out] and W [out, in] in blocks: the even columns of W, then the odd ones, so that half of W is wide at a
 * time; what the offsets take is one number a block.
 */
function backward(g: Value, matrix: FourBitBlocks): Value {
  const rows = flattenRows(g); // [R, out]
  const count = dimAt(rows.shape, 0);
  const blocks = blocksAfter(matrix, rows);
  const even = matMul(rows, dequantizeHalf(blocks, "even")); // [R, in / 2]
  const later = { ...blocks, levels: widened(matrix.levels, even) };
  const odd = matMul(rows, dequantizeHalf(later, "odd"));
  const from = 2 * Number(dimAt(even.shape, 1));
  const pairs = [even, odd].map((half) => reshape(half, [count, from / 2, 1]));
  const products = reshape(concat(pairs, 2), [count, from / BLOCK, BLOCK]);
  const taken = reshape(matMul(rows, blocks.offsets), [count, from / BLOCK, 1]);
  return reshape(sub(products, taken), [...g.shape.slice(0, -1), from]);
}

/** A product with a matrix in blocks; undefined where it has another form. */
function product(node: Node, operands: readonly Value[], packed: PackedWeights): Value | undefined {
  const [x, w, bias] = operands;
  if (!x || !w || !isOp(w.node, "DequantizeBlocks") || isWidened(x)) return undefined;
  const blocks = blocksOf(w.node.inputs);
  const forward = (): Value | undefined => {
    const held = packedBlocks(blocks, packed);
    if (held) return matMulNBits(x, held, packed.activations);
    return isFourBit(blocks) ? matMulNBits(x, blocksAfter(blocks, x)) : undefined;
  };
  if (isOp(node, "Gemm") && bias) {
    const y = forward();
    return y && add(y, bias);
  }
  if (!isOp(node, "MatMul") || node.attributes.transA || x.shape.length < 2) return undefined;
  const { transB, alpha } = node.attributes;
  const y = transB ? forward() : isFourBit(blocks) ? backward(x, blocks) : undefined;
  return y && alpha !== 1 ? mul(y, alpha) : y;
}

/** Numbers of a matrix that are wide at a time, where a matrix has more than twice as many. */
const AT_ONCE = 2 ** 23;

/** Some rows of a widened matrix, from the same rows of what it is held in; undefined where rows are no rows there. */
function someRows(value: Value, pick: (held: Value) => Value): Value | undefined {
  const { node } = value;
  if (isHeld(value)) return pick(value);
  if (!isOp(node, "Cast") && !isOp(node, "DequantizeBlocks")) return undefined;
  const parts = node.inputs.flatMap((part) => someRows(part, pick) ?? []);
  const [first] = parts;
  if (!first || parts.length < node.inputs.length) return undefined;
  return isOp(node, "Cast") ? cast(first, node.attributes.to) : dequantizeBlocks(blocksOf(parts));
}

/** Where the parts of a large matrix begin and end: an output layer over a vocabulary. */
function boundsOf({ shape }: Value): readonly number[] | undefined {
  const [out, from] = shape.map(Number);
  if (!out || !from || shape.length !== 2 || out * from <= 2 * AT_ONCE) return undefined;
  const rows = Math.ceil(out / Math.ceil((out * from) / AT_ONCE));
  return Array.from({ length: Math.ceil(out / rows) + 1 }, (_, i) => Math.min(out, i * rows));
}

/** A product with a large matrix, of which some rows are wide at a time, one part after the other. */
function inParts(node: Node, [x, w]: readonly Value[]): Value | undefined {
  if (!isOp(node, "MatMul") || node.attributes.transA || !x || !w || isWidened(x) || !isWidened(w))
    return undefined;
  const bounds = boundsOf(w);
  if (!bounds) return undefined;
  const { transB, alpha } = node.attributes;
  const products: Value[] = [];
  for (const [i, start] of bounds.slice(0, -1).entries()) {
    const end = bounds[i + 1] ?? start;
    const cause = products.at(-1) ?? x;
    const some = someRows(w, (held) => slice(after(held, cause), 0, start, end));
    if (!some) return undefined;
    const own = transB ? x : slice(x, -1, start, end);
    const product = matMul(own, some, { transB, alpha });
    const before = transB ? undefined : products.at(-1);
    products.push(before ? add(before, product) : product);
  }
  return transB ? concat(products, -1) : products.at(-1);
}

/** Rows of a table that is widened become the widened rows. */
function lookedUp(node: Node, [table, indices]: readonly Value[]): Value | undefined {
  if (!isOp(node, "Gather") || node.attributes.axis !== 0 || !table || !indices || !isWidened(table))
    return undefined;
  if (!isOp(table.node, "DequantizeBlocks")) return someRows(table, (held) => gather(held, indices));
  const flat = reshape(indices, [timesDim(...indices.shape)]);
  const found = someRows(table, (held) => gather(held, flat));
  return found && reshape(found, [...indices.shape, ...table.shape.slice(1)]);
}

const nothingPacked: PackedWeights = { blocks: new Map(), activations: "float32" };

/**
 * Weights that are held in 16, 8 or 4 bits are made wide at each use, and not before: a layer's weights are wide while the layer
 * is computed, forward and again backward, and never those of all layers. Products with four-bit matrices become products
 * of their blocks, and so do all that are `packed`. Returns the outputs of an equal graph, in their order; to be run last, since common subexpressions would
 * be joined again.
 */
export function widenLate(outputs: readonly Value[], packed: PackedWeights = nothingPacked): Value[] {
  const renewed = new Map<Value, Value>();
  const now = (value: Value): Value => renewed.get(value) ?? value;
  for (const node of topological(outputs)) {
    const [out] = node.outputs;
    if (out === undefined || isWidened(out)) continue;
    const operands = node.inputs.map(now);
    const better = product(node, operands, packed) ?? lookedUp(node, operands) ?? inParts(node, operands);
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
