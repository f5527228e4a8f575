import { TributaryError } from "../errors.ts";
import { allocate, byteSize, type DType } from "../tensor/dtype.ts";
import { sizeOf, type Tensor, tensor } from "../tensor/tensor.ts";
import { quote } from "./json.ts";

const dtypes: ReadonlyMap<string, DType> = new Map([
  ["b1", "bool"],
  ["u1", "uint8"],
  ["i1", "int8"],
  ["u2", "uint16"],
  ["i2", "int16"],
  ["u4", "uint32"],
  ["i4", "int32"],
  ["u8", "uint64"],
  ["i8", "int64"],
  ["f2", "float16"],
  ["f4", "float32"],
  ["f8", "float64"],
]);

const MAX_HEADER = 64 * 1024;
const MAX_RANK = 32;

/**
 * Reads a NumPy array file, versions 1 to 3; `file` names it in messages. Arrays of objects are pickles and are refused,
 * as are big-endian numbers and columns first. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
export function parseNpy(bytes: Uint8Array, file = "npy"): Tensor {
  const { dtype, shape, start } = npyHeader(bytes, file);
  const length = sizeOf(shape);
  if (bytes.length - start !== length * byteSize(dtype)) {
    throw refuse(
      file,
      `${bytes.length - start} bytes of data`,
      `${length * byteSize(dtype)} for shape [${shape}] of ${dtype}`,
    );
  }
  const data = allocate(dtype, length);
  // The copy is aligned to the elements, and little-endian as all machines that JavaScript runs on.
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength).set(bytes.subarray(start));
  return tensor(dtype, shape, data);
}

interface NpyHeader {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Where the data begin. */
  readonly start: number;
}

function npyHeader(bytes: Uint8Array, file: string): NpyHeader {
  if (bytes.length < 10 || String.fromCharCode(...bytes.subarray(0, 6)) !== "\u0093NUMPY")
    throw refuse(file, "other first bytes", "those of a NumPy file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [, , , , , , major = 0] = bytes;
  if (major < 1 || major > 3 || (major > 1 && bytes.length < 12))
    throw refuse(file, `version ${major}`, "version 1, 2 or 3");
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const at = major === 1 ? 10 : 12;
  if (length > MAX_HEADER || at + length > bytes.length)
    throw refuse(file, `a header of ${length} bytes`, `one within the file, at most ${MAX_HEADER}`);
  const text = new TextDecoder("utf-8").decode(bytes.subarray(at, at + length));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(text)?.[1];
  const dims = /'shape'\s*:\s*\(([\d\s,]*)\)/.exec(text)?.[1];
  if (descr === undefined || order === undefined || dims === undefined)
    throw refuse(file, `the header ${quote(text)}`, "descr, fortran_order and shape");
  const kind = /^[<|=]?(.*)$/.exec(descr)?.[1] ?? "";
  const dtype = dtypes.get(kind);
  if (dtype === undefined) {
    const next = kind.includes("O")
      ? "; arrays of objects are pickles: save numbers"
      : "; save it with .astype of one of these";
    throw refuse(
      file,
      `the type ${quote(descr)}`,
      `one of ${[...dtypes.keys()].join(", ")}, little-endian${next}`,
    );
  }
  if (order === "True") throw refuse(file, "columns first", "rows first; save numpy.ascontiguousarray of it");
  const shape = dims
    .split(",")
    .filter((dim) => dim.trim() !== "")
    .map(Number);
  if (shape.length > MAX_RANK || !Number.isSafeInteger(sizeOf(shape) * byteSize(dtype)))
    throw refuse(file, `the shape (${dims.slice(0, 80)})`, "one that fits in memory");
  return { dtype, shape, start: at + length };
}

function refuse(file: string, got: string, expected: string): TributaryError {
  return new TributaryError("npy-invalid", `${file}: got ${got}, expected ${expected}`);
}
