import type { BlockFormat } from "./block-format.ts";
import { plainFloats } from "./plain-floats.ts";
import { q2_k, q3_k, q4_k, q5_k, q6_k, q8_k } from "./super-blocks.ts";
import { q4_0, q4_1, q5_0, q5_1, q8_0 } from "./uniform-blocks.ts";

/** Names that GGML gives to the block formats that are read. */
export type BlockType =
  | "F32"
  | "F16"
  | "BF16"
  | "Q4_0"
  | "Q4_1"
  | "Q5_0"
  | "Q5_1"
  | "Q8_0"
  | "Q2_K"
  | "Q3_K"
  | "Q4_K"
  | "Q5_K"
  | "Q6_K"
  | "Q8_K";

export const blockFormats: { readonly [K in BlockType]: BlockFormat } = {
  F32: plainFloats("float32"),
  F16: plainFloats("float16"),
  BF16: plainFloats("bfloat16"),
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
  Q8_K: q8_k,
};

/** Decodes whole blocks into `out`, a new array where none is given; throws RangeError where the sizes do not fit. */
export function decodeBlocks(
  type: BlockType,
  bytes: Uint8Array,
  out: Float32Array = new Float32Array((bytes.length / blockFormats[type].bytes) * blockFormats[type].values),
): Float32Array {
  const format = blockFormats[type];
  if ((out.length / format.values) * format.bytes !== bytes.length || out.length % format.values !== 0) {
    throw new RangeError(
      `decodeBlocks: ${bytes.length} bytes of ${type} for ${out.length} values; ${format.bytes} bytes hold ${format.values}`,
    );
  }
  format.decode(bytes, out);
  return out;
}

/** Encodes values as whole blocks; throws RangeError where the last block is not full or the format is only read. */
export function encodeBlocks(type: BlockType, values: Float32Array): Uint8Array {
  const format = blockFormats[type];
  if (format.encode === undefined) throw new RangeError(`encodeBlocks: ${type} is read, not written`);
  if (values.length % format.values !== 0) {
    throw new RangeError(`encodeBlocks: ${values.length} values are no whole blocks of ${format.values}`);
  }
  return format.encode(values);
}
