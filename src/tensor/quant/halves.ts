import { convert, widen } from "../convert.ts";

/** The float16 numbers at `offset` of every block of `stride` bytes, as float32. */
export function halvesAt(bytes: Uint8Array, stride: number, offset: number, count: number): Float32Array {
  const bits = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const at = i * stride + offset;
    bits[i] = bytes[at]! | (bytes[at + 1]! << 8);
  }
  return widen({ dtype: "float16", shape: [count], data: bits }).data;
}

/** Writes numbers as float16 at `offset` of every block of `stride` bytes. */
export function putHalves(bytes: Uint8Array, stride: number, offset: number, values: Float32Array): void {
  const bits = convert({ dtype: "float32", shape: [values.length], data: values }, "float16").data;
  for (let i = 0; i < bits.length; i++) {
    bytes[i * stride + offset] = bits[i]! & 255;
    bytes[i * stride + offset + 1] = bits[i]! >> 8;
  }
}
