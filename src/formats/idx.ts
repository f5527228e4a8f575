import { TributaryError } from "../errors.ts";
import { allocate, byteSize, type DType } from "../tensor/dtype.ts";
import { sizeOf, type Tensor, tensor } from "../tensor/tensor.ts";

const dtypes: ReadonlyMap<number, DType> = new Map([
  [0x08, "uint8"],
  [0x09, "int8"],
  [0x0b, "int16"],
  [0x0c, "int32"],
  [0x0d, "float32"],
  [0x0e, "float64"],
]);

/** Reads an IDX file, as the sets of the MNIST family are written: big-endian sizes and numbers. `file` names it in messages. */
export function parseIdx(bytes: Uint8Array, file = "idx"): Tensor {
  const [zero, second, kind = 0, rank = 0] = bytes;
  const dtype = dtypes.get(kind);
  const start = 4 + 4 * rank;
  if (zero !== 0 || second !== 0 || dtype === undefined || rank === 0 || bytes.length < start)
    throw refuse(file, "other first bytes", "those of an IDX file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const width = byteSize(dtype);
  const length = sizeOf(shape);
  if (bytes.length - start !== length * width)
    throw refuse(
      file,
      `${bytes.length - start} bytes of data`,
      `${length * width} for shape [${shape}] of ${dtype}`,
    );
  const data = allocate(dtype, length);
  const target = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  target.set(bytes.subarray(start));
  if (width > 1) for (let at = 0; at < target.length; at += width) target.subarray(at, at + width).reverse();
  return tensor(dtype, shape, data);
}

function refuse(file: string, got: string, expected: string): TributaryError {
  return new TributaryError("idx-invalid", `${file}: got ${got}, expected ${expected}`);
}
