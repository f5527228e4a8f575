import { hasDtype, widen } from "../tensor/convert.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";

/**
 * A constant matrix in blocks as ONNX Runtime's kernel has it, whose zero is the middle level: level 8 of four bits, level 128
 * of eight.
 */
export interface PackedBlocks {
  readonly levels: Tensor<"uint8">;
  readonly scales: Tensor<"float32">;
  /**
   * What a block adds to the product for each sum of x over its places, [blocks, out]; absent where that is nothing. With
   * four bits, `scale * level - offset = scale * (level - 8) + (8 * scale - offset)`.
   */
  readonly rest?: Tensor<"float32">;
}

/** The parts of a constant matrix as they are packed. */
export function packedBlocks(levels: Tensor, scales: Tensor, offsets?: Tensor): PackedBlocks {
  const [out = 0, blocks = 0] = scales.shape;
  const scale = widen(scales);
  if (!hasDtype(levels, "uint8"))
    throw new TypeError(`packedBlocks: got levels in ${levels.dtype}, expected uint8`);
  if (!offsets) return { levels, scales: scale };
  const offset = widen(offsets).data;
  const rest = new Float32Array(blocks * out);
  let isNothing = true;
  for (let row = 0; row < out; row++) {
    for (let block = 0; block < blocks; block++) {
      const at = row * blocks + block;
      const more = 8 * scale.data[at]! - offset[at]!;
      rest[block * out + row] = more;
      if (more !== 0) isNothing = false;
    }
  }
  const parts = { levels, scales: scale };
  return isNothing ? parts : { ...parts, rest: tensor("float32", [blocks, out], rest) };
}
