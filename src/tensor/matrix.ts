import { widen } from "./convert.ts";
import type { Tensor } from "./tensor.ts";

/** A dense float64 matrix, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

/** A matrix of zeros, or over the given row-major values; throws RangeError if their number does not fit. */
export function matrix(rows: number, cols: number, values?: ArrayLike<number>): Matrix {
  if (values !== undefined && values.length !== rows * cols) {
    throw new RangeError(`matrix: ${rows} x ${cols} needs ${rows * cols} values, got ${values.length}`);
  }
  if (values === undefined) return { rows, cols, data: new Float64Array(rows * cols) };
  return { rows, cols, data: values instanceof Float64Array ? values : Float64Array.from(values) };
}

/** The float64 matrix of a tensor with two dimensions. */
export function matrixOf(tensor: Tensor): Matrix {
  const [rows, cols] = tensor.shape;
  if (rows === undefined || cols === undefined || tensor.shape.length !== 2) {
    throw new RangeError(`matrixOf: a tensor of shape [${tensor.shape}], expected two dimensions`);
  }
  return {
    rows,
    cols,
    data: Float64Array.from(tensor.dtype === "float64" ? tensor.data : widen(tensor).data, Number),
  };
}

/** A float32 tensor of a matrix, each entry rounded once. */
export function tensorOf({ rows, cols, data }: Matrix): Tensor<"float32"> {
  return { dtype: "float32", shape: [rows, cols], data: Float32Array.from(data) };
}

/** The transpose, as a copy. */
export function transpose({ rows, cols, data }: Matrix): Matrix {
  const out = new Float64Array(data.length);
  const tile = 32; // both sides of a tile stay in cache
  for (let i0 = 0; i0 < rows; i0 += tile) {
    for (let j0 = 0; j0 < cols; j0 += tile) {
      const iEnd = Math.min(i0 + tile, rows);
      const jEnd = Math.min(j0 + tile, cols);
      for (let i = i0; i < iEnd; i++) for (let j = j0; j < jEnd; j++) out[j * rows + i] = data[i * cols + j]!;
    }
  }
  return { rows: cols, cols: rows, data: out };
}

/** The product a b, or with either factor transposed. */
export function matmul(
  a: Matrix,
  b: Matrix,
  {
    transposeA = false,
    transposeB = false,
  }: { readonly transposeA?: boolean; readonly transposeB?: boolean } = {},
): Matrix {
  const left = transposeA ? transpose(a) : a;
  const right = transposeB ? b : transpose(b); // [n, k], so that both inner dimensions are contiguous
  if (left.cols !== right.cols) {
    throw new RangeError(`matmul: inner dimensions ${left.cols} and ${right.cols} differ`);
  }
  const out = matrix(left.rows, right.rows);
  addDots(out.data, left.data, left.rows, right.data, right.rows, left.cols);
  return out;
}

/** The first `count` columns. */
export function firstColumns({ rows, cols, data }: Matrix, count: number): Matrix {
  const out = matrix(rows, count);
  for (let i = 0; i < rows; i++) out.data.set(data.subarray(i * cols, i * cols + count), i * count);
  return out;
}

/** The first `count` rows. */
export function firstRows({ cols, data }: Matrix, count: number): Matrix {
  return { rows: count, cols, data: data.slice(0, count * cols) };
}

/** Entries of the inner dimension per pass: a few dozen vectors of them fit in the second-level cache. */
const CHUNK = 512;

/**
 * `out[i, j] += <x_i, y_j>` for vectors stored one after the other, each `length` long. In blocks of 4 x 2 products, so
 * that each value loaded is used more than once.
 */
export function addDots(
  out: Float64Array,
  x: Float64Array,
  xCount: number,
  y: Float64Array,
  yCount: number,
  length: number,
): void {
  for (let start = 0; start < length; start += CHUNK) {
    const end = Math.min(start + CHUNK, length);
    // A block of y is passed over by all of x while it is in cache.
    for (let j0 = 0; j0 < yCount; j0 += 32) {
      const jEnd = Math.min(j0 + 32, yCount);
      let i = 0;
      for (; i + 4 <= xCount; i += 4) {
        let j = j0;
        for (; j + 2 <= jEnd; j += 2) dots4x2(out, yCount, x, y, i, j, length, start, end);
        for (; j < jEnd; j++)
          for (let k = i; k < i + 4; k++) dot1(out, yCount, x, y, k, j, length, start, end);
      }
      for (; i < xCount; i++)
        for (let j = j0; j < jEnd; j++) dot1(out, yCount, x, y, i, j, length, start, end);
    }
  }
}

function dot1(
  out: Float64Array,
  width: number,
  x: Float64Array,
  y: Float64Array,
  i: number,
  j: number,
  length: number,
  start: number,
  end: number,
): void {
  let sum = 0;
  for (let p = i * length + start, q = j * length + start; p < i * length + end; p++, q++)
    sum += x[p]! * y[q]!;
  out[i * width + j] = out[i * width + j]! + sum;
}

function dots4x2(
  out: Float64Array,
  width: number,
  x: Float64Array,
  y: Float64Array,
  i: number,
  j: number,
  length: number,
  start: number,
  end: number,
): void {
  let s00 = 0;
  let s01 = 0;
  let s10 = 0;
  let s11 = 0;
  let s20 = 0;
  let s21 = 0;
  let s30 = 0;
  let s31 = 0;
  const x0 = i * length;
  const x1 = x0 + length;
  const x2 = x1 + length;
  const x3 = x2 + length;
  const y0 = j * length;
  const y1 = y0 + length;
  for (let t = start; t < end; t++) {
    const a = y[y0 + t]!;
    const b = y[y1 + t]!;
    const c0 = x[x0 + t]!;
    const c1 = x[x1 + t]!;
    const c2 = x[x2 + t]!;
    const c3 = x[x3 + t]!;
    s00 += c0 * a;
    s01 += c0 * b;
    s10 += c1 * a;
    s11 += c1 * b;
    s20 += c2 * a;
    s21 += c2 * b;
    s30 += c3 * a;
    s31 += c3 * b;
  }
  const o = i * width + j;
  out[o] = out[o]! + s00;
  out[o + 1] = out[o + 1]! + s01;
  out[o + width] = out[o + width]! + s10;
  out[o + width + 1] = out[o + width + 1]! + s11;
  out[o + 2 * width] = out[o + 2 * width]! + s20;
  out[o + 2 * width + 1] = out[o + 2 * width + 1]! + s21;
  out[o + 3 * width] = out[o + 3 * width]! + s30;
  out[o + 3 * width + 1] = out[o + 3 * width + 1]! + s31;
}

/**
 * `y_j -= sum_i w[i, j] x_i` for vectors stored one after the other, each `length` long, from entry `first` on.
 */
export function subtractCombinations(
  y: Float64Array,
  yCount: number,
  x: Float64Array,
  xCount: number,
  w: Float64Array,
  length: number,
  first: number,
): void {
  for (let start = first; start < length; start += CHUNK) {
    const end = Math.min(start + CHUNK, length);
    for (let j = 0; j < yCount; j++) {
      const yj = j * length;
      let i = 0;
      for (; i + 4 <= xCount; i += 4) {
        const w0 = w[i * yCount + j]!;
        const w1 = w[(i + 1) * yCount + j]!;
        const w2 = w[(i + 2) * yCount + j]!;
        const w3 = w[(i + 3) * yCount + j]!;
        const x0 = i * length;
        const x1 = x0 + length;
        const x2 = x1 + length;
        const x3 = x2 + length;
        for (let t = start; t < end; t++) {
          y[yj + t] = y[yj + t]! - (w0 * x[x0 + t]! + w1 * x[x1 + t]! + (w2 * x[x2 + t]! + w3 * x[x3 + t]!));
        }
      }
      for (; i < xCount; i++) {
        const wi = w[i * yCount + j]!;
        const xi = i * length;
        for (let t = start; t < end; t++) y[yj + t] = y[yj + t]! - wi * x[xi + t]!;
      }
    }
  }
}
