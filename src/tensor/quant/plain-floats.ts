import { convert, widen } from "../convert.ts";
import { allocate, byteSize } from "../dtype.ts";
import type { BlockFormat } from "./block-format.ts";

/** Plain floats, little endian: blocks of one value. */
export function plainFloats(dtype: "float32" | "float16" | "bfloat16"): BlockFormat {
  const size = byteSize(dtype);
  return {
    values: 1,
    bytes: size,
    decode(bytes, out) {
      const data = allocate(dtype, out.length);
      new Uint8Array(data.buffer).set(bytes.subarray(0, out.length * size));
      out.set(widen({ dtype, shape: [out.length], data }).data);
    },
    encode(values) {
      const { data } = convert({ dtype: "float32", shape: [values.length], data: values }, dtype);
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    },
  };
}
