import { dimAt, type Shape, sameShape } from "../shape.ts";
import { applyOp, type OpAttributes, type Value } from "../value.ts";

/** Numbers of a row that share a scale. */
export const BLOCK = 32;

/**
 * A matrix [out, in] in blocks. Of four bits: number k of block j in row i is `scales[i, j] * level - offsets[i, j]`; the
 * levels of a row, from 0 to 15, lie in order, each even one in the low half of its byte. Of eight bits: it is
 * `scales[i, j] * (level - 128)`, without offsets. No scale of four bits is 0.
 */
export interface Blocks {
  readonly levels: Value; // uint8 [out, in / 32, 16], or [out, in / 32, 32] without offsets
  readonly scales: Value; // [out, in / 32]
  readonly offsets?: Value; // [out, in / 32]
}

/** Blocks of four bits. */
export type FourBitBlocks = Required<Blocks>;

/** How the rows that a matrix in blocks is multiplied with are rounded. "int8": to eight bits in each block. */
export type Activations = OpAttributes["MatMulNBits"]["activations"];

/** Whether blocks have four bits a number. */
export function isFourBit(blocks: Blocks): blocks is FourBitBlocks {
  return blocks.offsets !== undefined;
}

/** The shape [out, in] of a matrix in blocks. */
function shapeOf(blocks: Blocks, who: string): Shape {
  const { levels, scales, offsets } = blocks;
  const [out, count] = levels.shape;
  const bytes = isFourBit(blocks) ? BLOCK / 2 : BLOCK;
  if (
    out === undefined ||
    typeof count !== "number" ||
    levels.dtype !== "uint8" ||
    !sameShape(levels.shape, [out, count, bytes]) ||
    !sameShape(scales.shape, [out, count]) ||
    (offsets && !sameShape(offsets.shape, [out, count]))
  ) {
    throw new RangeError(
      `${who}: got levels ${levels.dtype} [${levels.shape}], scales [${scales.shape}], offsets [${offsets?.shape ?? "none"}]; ` +
        "expected uint8 [out, blocks, 16], [out, blocks], [out, blocks], or uint8 [out, blocks, 32], [out, blocks]",
    );
  }
  return [out, BLOCK * count];
}

function only(values: readonly Value[]): Value {
  const [value] = values;
  if (value === undefined) throw new Error("graph: an op without outputs");
  return value;
}

const parts = ({ levels, scales, offsets }: Blocks): readonly Value[] =>
  offsets ? [levels, scales, offsets] : [levels, scales];

/** The matrix [out, in] in the dtype of its scales. */
export function dequantizeBlocks(blocks: Blocks): Value {
  const shape = shapeOf(blocks, "DequantizeBlocks");
  return only(applyOp("DequantizeBlocks", {}, parts(blocks), [{ dtype: blocks.scales.dtype, shape }]));
}

/** The columns of even number, or of odd number, of four-bit blocks without their offsets: `scale * level` [out, in / 2]. */
export function dequantizeHalf(blocks: FourBitBlocks, half: "even" | "odd"): Value {
  const { levels, scales } = blocks;
  const [out = 0, from] = shapeOf(blocks, "DequantizeHalf");
  const shape = [out, Number(from) / 2];
  return only(applyOp("DequantizeHalf", { half }, [levels, scales], [{ dtype: scales.dtype, shape }]));
}

/**
 * `x Wᵀ` for x [..., in] and W [out, in] in blocks; levels of eight bits are constants. Where levels are constants, the rows of
 * x are rounded as `activations` says.
 */
export function matMulNBits(x: Value, blocks: Blocks, activations: Activations = "float32"): Value {
  const { levels, scales } = blocks;
  const [out = 0, from] = shapeOf(blocks, "MatMulNBits");
  if (dimAt(x.shape, -1) !== from || x.dtype !== scales.dtype) {
    throw new RangeError(
      `MatMulNBits: got x ${x.dtype} [${x.shape}] for a matrix ${scales.dtype} [${out}, ${from}]`,
    );
  }
  if (!isFourBit(blocks) && !levels.constant)
    throw new RangeError(`MatMulNBits: got levels of eight bits that are fed, expected constants`);
  const shape = [...x.shape.slice(0, -1), out];
  return only(applyOp("MatMulNBits", { activations }, [x, ...parts(blocks)], [{ dtype: x.dtype, shape }]));
}

/** The blocks that an op was applied to. */
export function blocksOf([levels, scales, offsets]: readonly Value[]): Blocks {
  if (!levels || !scales) throw new Error("graph: a matrix in blocks without levels and scales");
  return { levels, scales, ...(offsets && { offsets }) };
}
