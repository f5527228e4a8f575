import { widen } from "./convert.ts";
import { addDots, combine, type Vectors } from "./kernels.ts";
import type { Tensor } from "./tensor.ts";

/** A dense float64 matrix, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

/** A matrix whose values are only read. */
export interface Factor {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array | Float64Array;
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
export function transpose({ rows, cols, data }: Factor): Matrix {
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
  a: Factor,
  b: Factor,
  {
    transposeA = false,
    transposeB = false,
  }: { readonly transposeA?: boolean; readonly transposeB?: boolean } = {},
): Matrix {
  const left = transposeA ? columnVectors(a) : rowVectors(a);
  const right = transposeB ? rowVectors(b) : columnVectors(b);
  if (left.length !== right.length) {
    throw new RangeError(`matmul: inner dimensions ${left.length} and ${right.length} differ`);
  }
  const out = matrix(left.count, right.count);
  addDots(out.data, [left], [right]);
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

/** The rows as vectors. */
export function rowVectors({ rows, cols, data }: Factor): Vectors {
  return { data, count: rows, length: cols, between: cols, along: 1 };
}

/** The columns as vectors. */
export function columnVectors({ rows, cols, data }: Factor): Vectors {
  return { data, count: cols, length: rows, between: 1, along: cols };
}

/** Inner products of all the vectors with each other, in the order of the list. */
export function gram(list: readonly Vectors[]): Matrix {
  const count = list.reduce((sum, vectors) => sum + vectors.count, 0);
  const out = matrix(count, count);
  addDots(out.data, list);
  return out;
}

/** The combinations `sum_k w[k, j] x_k` of the vectors x, one for each column of the weights, as rows. */
export function combinations(list: readonly Vectors[], weights: Matrix): Matrix {
  const out = matrix(weights.cols, list[0]?.length ?? 0);
  combine(list, weights.data, weights.cols, (j, start, values) => out.data.set(values, j * out.cols + start));
  return out;
}
