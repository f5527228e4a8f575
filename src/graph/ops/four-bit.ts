import { dimAt, type Shape, sameShape } from "../shape.ts";
import { applyOp, type Value } from "../value.ts";

/** Numbers of a row that share a scale and an offset. */
export const BLOCK = 32;

/**
 * A matrix [out, in] in blocks of four bits: number k of block j in row i is `scales[i, j] * level - offsets[i, j]`. The
 * levels of a row, from 0 to 15, lie in order, each even one in the low half of its byte. No scale is 0.
 */
export interface Blocks {
  readonly levels: Value; // uint8 [out, in / 32, 16]
  readonly scales: Value; // [out, in / 32]
  readonly offsets: Value; // [out, in / 32]
}

/** The shape [out, in] of a matrix in blocks. */
function shapeOf({ levels, scales, offsets }: Blocks, who: string): readonly [out: number, from: number] {
  const [out, blocks, bytes] = levels.shape;
  if (
    levels.dtype !== "uint8" ||
    typeof out !== "number" ||
    typeof blocks !== "number" ||
    bytes !== BLOCK / 2 ||
    !sameShape(scales.shape, [out, blocks]) ||
    !sameShape(offsets.shape, [out, blocks])
  ) {
    throw new RangeError(
      `${who}: got levels ${levels.dtype} [${levels.shape}], scales [${scales.shape}], offsets [${offsets.shape}]; ` +
        "expected uint8 [out, blocks, 16], [out, blocks], [out, blocks]",
    );
  }
  return [out, BLOCK * blocks];
}

function only(values: readonly Value[]): Value {
  const [value] = values;
  if (value === undefined) throw new Error("graph: an op without outputs");
  return value;
}

/** The matrix [out, in] in the dtype of its scales. */
export function dequantizeBlocks(blocks: Blocks): Value {
  const { levels, scales, offsets } = blocks;
  const shape: Shape = shapeOf(blocks, "DequantizeBlocks");
  return only(applyOp("DequantizeBlocks", {}, [levels, scales, offsets], [{ dtype: scales.dtype, shape }]));
}

/** The columns of even number, or of odd number, without their offsets: `scale * level` [out, in / 2]. */
export function dequantizeHalf(blocks: Blocks, half: "even" | "odd"): Value {
  const { levels, scales } = blocks;
  const [out, from] = shapeOf(blocks, "DequantizeHalf");
  return only(
    applyOp("DequantizeHalf", { half }, [levels, scales], [{ dtype: scales.dtype, shape: [out, from / 2] }]),
  );
}

/** `x Wᵀ` for x [..., in] and W [out, in] in blocks. */
export function matMulNBits(x: Value, blocks: Blocks): Value {
  const { levels, scales, offsets } = blocks;
  const [out, from] = shapeOf(blocks, "MatMulNBits");
  if (dimAt(x.shape, -1) !== from || x.dtype !== scales.dtype) {
    throw new RangeError(
      `MatMulNBits: got x ${x.dtype} [${x.shape}] for a matrix ${scales.dtype} [${out}, ${from}]`,
    );
  }
  const shape = [...x.shape.slice(0, -1), out];
  return only(applyOp("MatMulNBits", {}, [x, levels, scales, offsets], [{ dtype: x.dtype, shape }]));
}

/** The blocks that an op was applied to. */
export function blocksOf(operands: readonly Value[]): Blocks {
  const [levels, scales, offsets] = operands;
  if (!levels || !scales || !offsets)
    throw new Error("graph: a matrix in blocks without levels, scales and offsets");
  return { levels, scales, offsets };
}
