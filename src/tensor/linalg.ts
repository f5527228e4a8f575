import {
  addDots,
  firstColumns,
  firstRows,
  type Matrix,
  matmul,
  matrix,
  subtractCombinations,
  transpose,
} from "./matrix.ts";
import type { RandomStream } from "./random.ts";

/** A = u diag(singularValues) vt with orthonormal columns of u [rows, k] and rows of vt [k, cols], values descending. */
export interface Svd {
  readonly u: Matrix;
  readonly singularValues: Float64Array;
  readonly vt: Matrix;
}

/** `coefficient * left @ right`, left [out, r], right [r, in]. */
export interface LowRankTerm {
  readonly coefficient: number;
  readonly left: Matrix;
  readonly right: Matrix;
}

/** Thin QR by Householder reflections: q [rows, k] orthonormal, r [k, cols] upper triangular, k = min(rows, cols). */
export function qr(a: Matrix): { readonly q: Matrix; readonly r: Matrix } {
  const factored = factorize(transpose(a).data, a.rows, a.cols);
  return { q: applyQ(factored, identity(factored.count)), r: factored.r };
}

/** Thin singular value decomposition by one-sided Jacobi rotations after QR; signs as `fixSigns` sets them. */
export function svd(a: Matrix): Svd {
  if (a.rows < a.cols) {
    const { u, singularValues, vt } = svd(transpose(a));
    return fixSigns({ u: transpose(vt), singularValues, vt: transpose(u) });
  }
  const factored = factorize(transpose(a).data, a.rows, a.cols); // A = Q R
  const { u, singularValues, vt } = triangularSvd(factored.r);
  return fixSigns({ u: applyQ(factored, u), singularValues, vt });
}

/**
 * The compact SVD of `sum_k c_k B_k A_k`, [out, in], without forming it: thin QR of the stacked factors, SVD of the small
 * product of their triangles. Only the components above the numerical rank are kept; a zero sum has none.
 */
export function svdOfSum(terms: readonly LowRankTerm[]): Svd {
  const { left, right } = stackTerms(terms);
  const rows = left.rows;
  const cols = right.cols;
  const qrLeft = factorize(transpose(left).data, rows, left.cols); // B = Q_B R_B
  const qrRight = factorize(right.data.slice(), cols, right.rows); // A^T = Q_A R_A
  const small = svd(matmul(qrLeft.r, qrRight.r, { transposeB: true })); // R_B R_A^T
  const rank = numericalRank(small.singularValues, rows, cols);
  const u = applyQ(qrLeft, firstColumns(small.u, rank));
  const v = applyQ(qrRight, transpose(firstRows(small.vt, rank)));
  return fixSigns({ u, singularValues: small.singularValues.slice(0, rank), vt: transpose(v) });
}

/** The stacked factors: `sum_k c_k B_k A_k = left @ right`, left [out, sum r], right [sum r, in]. */
export function stackTerms(terms: readonly LowRankTerm[]): { readonly left: Matrix; readonly right: Matrix } {
  const [first] = terms;
  if (first === undefined) throw new RangeError("stackTerms: no terms, so the shape of their sum is unknown");
  const rows = first.left.rows;
  const cols = first.right.cols;
  let total = 0;
  for (const { left, right } of terms) {
    if (left.rows !== rows || right.cols !== cols || left.cols !== right.rows) {
      throw new RangeError(
        `stackTerms: factors ${left.rows} x ${left.cols} and ${right.rows} x ${right.cols} in a sum of ${rows} x ${cols}`,
      );
    }
    total += left.cols;
  }
  const left = matrix(rows, total);
  const right = matrix(total, cols);
  let offset = 0;
  for (const term of terms) {
    const rank = term.left.cols;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < rank; j++) {
        left.data[i * total + offset + j] = term.coefficient * term.left.data[i * rank + j]!;
      }
    }
    right.data.set(term.right.data, offset * cols);
    offset += rank;
  }
  return { left, right };
}

/** How many singular values exceed `epsilon * max(rows, cols) * largest`. They must be in descending order. */
export function numericalRank(
  singularValues: ArrayLike<number>,
  rows: number,
  cols: number,
  epsilon: number = 2 ** -52,
): number {
  const threshold = epsilon * Math.max(rows, cols) * (singularValues[0] ?? 0);
  let rank = 0;
  while (rank < singularValues.length && singularValues[rank]! > threshold) rank++;
  return rank;
}

/** The leading `rank` components of a decomposition; fewer where it has fewer. */
export function truncate({ u, singularValues, vt }: Svd, rank: number): Svd {
  const kept = Math.min(rank, singularValues.length);
  return { u: firstColumns(u, kept), singularValues: singularValues.slice(0, kept), vt: firstRows(vt, kept) };
}

/** Makes the entry of largest magnitude (the first of equals) of every left vector positive. */
export function fixSigns({ u, singularValues, vt }: Svd): Svd {
  const left = u.data.slice();
  const right = vt.data.slice();
  for (let j = 0; j < u.cols; j++) {
    let largest = 0;
    for (let i = 0; i < u.rows; i++) {
      const entry = left[i * u.cols + j]!;
      if (Math.abs(entry) > Math.abs(largest)) largest = entry;
    }
    if (largest >= 0) continue;
    for (let i = 0; i < u.rows; i++) left[i * u.cols + j] = -left[i * u.cols + j]!;
    for (let i = j * vt.cols; i < (j + 1) * vt.cols; i++) right[i] = -right[i]!;
  }
  return { u: { ...u, data: left }, singularValues, vt: { ...vt, data: right } };
}

/** `<B_1 A_1, B_2 A_2>` from the factors: tr((B_1^T B_2)(A_2 A_1^T)). */
export function productInner(
  first: { readonly left: Matrix; readonly right: Matrix },
  second: { readonly left: Matrix; readonly right: Matrix },
): number {
  const lefts = matmul(first.left, second.left, { transposeA: true });
  const rights = matmul(first.right, second.right, { transposeB: true });
  let sum = 0;
  for (let i = 0; i < lefts.data.length; i++) sum += lefts.data[i]! * rights.data[i]!;
  return sum;
}

/**
 * `||sum_k c_k B_k A_k||^2` (Frobenius) from the factors. Cancellation hides sums below about 1e-8 of the largest term:
 * for those take the singular values of `svdOfSum`.
 */
export function productNormSquared(terms: readonly LowRankTerm[]): number {
  const stacked = stackTerms(terms);
  return Math.max(0, productInner(stacked, stacked));
}

/** How `rangeFinder` and `leadingSvd` search. */
export interface RangeFinderOptions {
  /** Directions beyond the wanted ones. */
  readonly oversampling?: number;
  /** Passes of a a^T that sharpen the gap between wanted and unwanted directions. */
  readonly powerIterations?: number;
}

/**
 * An orthonormal basis [rows, rank + oversampling] that nearly holds the leading left singular vectors.
 *
 * Halko, Martinsson and Tropp, SIAM Review 2011, Algorithm 4.4. https://arxiv.org/abs/0909.4061
 */
export function rangeFinder(
  a: Matrix,
  rank: number,
  random: RandomStream,
  { oversampling = 8, powerIterations = 2 }: RangeFinderOptions = {},
): Matrix {
  const width = Math.min(rank + oversampling, a.rows, a.cols);
  const probe = matrix(a.cols, width);
  random.fillNormal(probe.data, 0, 1);
  let basis = qr(matmul(a, probe)).q;
  for (let pass = 0; pass < powerIterations; pass++) {
    const dual = qr(matmul(a, basis, { transposeA: true })).q;
    basis = qr(matmul(a, dual)).q;
  }
  return basis;
}

/** The leading components of a dense matrix: exact up to 512 rows or columns, beyond that by the range finder. */
export function leadingSvd(
  a: Matrix,
  rank: number,
  random: RandomStream,
  options: RangeFinderOptions = {},
): Svd {
  if (Math.min(a.rows, a.cols) <= Math.max(512, rank)) return truncate(svd(a), rank);
  return randomizedSvd(a, rank, random, options);
}

/** The leading components of a dense matrix inside the space of the range finder. */
export function randomizedSvd(
  a: Matrix,
  rank: number,
  random: RandomStream,
  options: RangeFinderOptions = {},
): Svd {
  const basis = rangeFinder(a, rank, random, options);
  const small = svd(matmul(basis, a, { transposeA: true }));
  return fixSigns(truncate({ ...small, u: matmul(basis, small.u) }, rank));
}

/**
 * Eigenvalues, descending, and orthonormal eigenvectors (columns) of a symmetric matrix, by cyclic Jacobi rotations.
 * Golub and Van Loan, Matrix Computations, 4th edition, Algorithm 8.5.3.
 */
export function symmetricEigen(a: Matrix): { readonly values: Float64Array; readonly vectors: Matrix } {
  const n = a.rows;
  if (n !== a.cols) throw new RangeError(`symmetricEigen: ${a.rows} x ${a.cols}, expected a square matrix`);
  const s = a.data.slice();
  const rows = identity(n).data; // row j is the j-th eigenvector
  let total = 0;
  for (const entry of s) total += entry * entry;
  const small = 2 ** -52 * Math.sqrt(total) * 2 ** -10;
  for (let sweep = 0, rotated = true; rotated && sweep < MAX_SWEEPS; sweep++) {
    rotated = false;
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const off = s[p * n + q]!;
        if (Math.abs(off) <= small / n) continue;
        rotated = true;
        const [cos, sin] = rotation(s[p * n + p]!, s[q * n + q]!, off);
        rotateVectors(s, p * n, q * n, n, cos, sin);
        for (let i = 0; i < n; i++) {
          const x = s[i * n + p]!;
          const y = s[i * n + q]!;
          s[i * n + p] = cos * x - sin * y;
          s[i * n + q] = sin * x + cos * y;
        }
        s[p * n + q] = 0;
        s[q * n + p] = 0;
        rotateVectors(rows, p * n, q * n, n, cos, sin);
      }
    }
  }
  const diagonal = Float64Array.from({ length: n }, (_, i) => s[i * n + i]!);
  const order = descending(diagonal);
  const vectors = transpose(pickRows({ rows: n, cols: n, data: rows }, order));
  const values = Float64Array.from(order, (i) => diagonal[i]!);
  return { values, vectors: fixSigns({ u: vectors, singularValues: values, vt: matrix(n, 0) }).u };
}

const MAX_SWEEPS = 60;

/** Columns of a panel of reflections that are applied to the rest together. */
const PANEL = 32;

/** Q = I - V T V^T (compact WY form) and R of a thin QR. */
interface Factored {
  readonly rows: number;
  /** Number of reflections, min(rows, cols). */
  readonly count: number;
  /** The reflection vectors one after the other, each `rows` long, zero above and one on the diagonal. */
  readonly v: Float64Array;
  readonly tau: Float64Array;
  readonly r: Matrix;
}

/** Householder QR of columns stored one after the other; `a` is overwritten. Zero columns need no division. */
function factorize(a: Float64Array, rows: number, cols: number): Factored {
  const count = Math.min(rows, cols);
  const scale = powerOfTwoScale(a);
  if (scale !== 1) for (let i = 0; i < a.length; i++) a[i] = a[i]! / scale;
  const v = new Float64Array(count * rows);
  const tau = new Float64Array(count);
  for (let p = 0; p < count; p += PANEL) {
    const end = Math.min(p + PANEL, count);
    for (let j = p; j < end; j++) {
      tau[j] = reflector(a, v, j, rows);
      for (let c = j + 1; c < end; c++) reflect(a, c * rows, v, j, rows, tau[j]!);
    }
    const width = end - p;
    const trailing = cols - end;
    if (trailing === 0) continue;
    const panel = v.subarray(p * rows, end * rows);
    const rest = a.subarray(end * rows);
    // C -= V T^T V^T C
    const w = new Float64Array(width * trailing);
    addDots(w, panel, width, rest, trailing, rows);
    const t = triangle(panel, tau.subarray(p, end), rows);
    for (let c = 0; c < trailing; c++) {
      for (let i = width - 1; i >= 0; i--) {
        let sum = 0;
        for (let k = 0; k <= i; k++) sum += t[k * width + i]! * w[k * trailing + c]!;
        w[i * trailing + c] = sum;
      }
    }
    subtractCombinations(rest, trailing, panel, width, w, rows, p);
  }
  const r = matrix(count, cols);
  for (let i = 0; i < count; i++) {
    for (let j = i; j < cols; j++) r.data[i * cols + j] = a[j * rows + i]! * scale;
  }
  return { rows, count, v, tau, r };
}

/** Makes the reflection that clears column j below the diagonal, applies it to that column, and returns its tau. */
function reflector(a: Float64Array, v: Float64Array, j: number, rows: number): number {
  const base = j * rows;
  v[base + j] = 1;
  let below = 0;
  for (let i = j + 1; i < rows; i++) below += a[base + i]! * a[base + i]!;
  if (below === 0) return 0;
  const head = a[base + j]!;
  const length = Math.sqrt(head * head + below);
  const beta = head > 0 ? -length : length;
  const divisor = head - beta;
  for (let i = j + 1; i < rows; i++) {
    v[base + i] = a[base + i]! / divisor;
    a[base + i] = 0;
  }
  a[base + j] = beta;
  return -divisor / beta;
}

/** Applies I - tau v_j v_j^T to the column of `a` at `offset`. */
function reflect(
  a: Float64Array,
  offset: number,
  v: Float64Array,
  j: number,
  rows: number,
  tau: number,
): void {
  if (tau === 0) return;
  const base = j * rows;
  let even = 0;
  let odd = 0;
  let i = j;
  for (; i + 1 < rows; i += 2) {
    even += v[base + i]! * a[offset + i]!;
    odd += v[base + i + 1]! * a[offset + i + 1]!;
  }
  if (i < rows) even += v[base + i]! * a[offset + i]!;
  const factor = tau * (even + odd);
  for (i = j; i < rows; i++) a[offset + i] = a[offset + i]! - factor * v[base + i]!;
}

/** The upper triangular T of I - V T V^T, [count, count]. Schreiber and Van Loan, 1989. */
function triangle(v: Float64Array, tau: Float64Array, rows: number): Float64Array {
  const count = tau.length;
  const gram = new Float64Array(count * count);
  addDots(gram, v, count, v, count, rows);
  const t = new Float64Array(count * count);
  for (let j = 0; j < count; j++) {
    const tj = tau[j]!;
    t[j * count + j] = tj;
    for (let i = 0; i < j; i++) {
      let sum = 0;
      for (let k = i; k < j; k++) sum += t[i * count + k]! * gram[k * count + j]!;
      t[i * count + j] = -tj * sum;
    }
  }
  return t;
}

/** Q [x; 0] for x [count, k]: the product with the thin Q, [rows, k]. */
function applyQ({ rows, count, v, tau }: Factored, x: Matrix): Matrix {
  const width = x.cols;
  const top = new Float64Array(count * count); // V_top^T, row j is the head of v_j
  for (let j = 0; j < count; j++) top.set(v.subarray(j * rows, j * rows + count), j * count);
  const head = matmul({ rows: count, cols: count, data: top }, x);
  const weights = matmul({ rows: count, cols: count, data: triangle(v, tau, rows) }, head); // T V_top^T x
  const columns = new Float64Array(width * rows);
  for (let j = 0; j < width; j++)
    for (let i = 0; i < count; i++) columns[j * rows + i] = x.data[i * width + j]!;
  subtractCombinations(columns, width, v, count, weights.data, rows, 0);
  return transpose({ rows: width, cols: rows, data: columns });
}

/**
 * One-sided Jacobi for a square matrix. It is factored again with pivoting, R P = Q_2 R_2, which orders the rows of R_2
 * and so saves sweeps; rotations then make those rows orthogonal. Their norms are the singular values, their directions
 * the right vectors; the left ones are the orthonormal factor of R_2 V, whose columns are u_j sigma_j.
 * Drmac and Veselic, "New fast and accurate Jacobi SVD algorithm", 2008.
 */
function triangularSvd(r: Matrix): Svd {
  const n = r.rows;
  const columns = transpose(r).data;
  const scale = powerOfTwoScale(columns);
  if (scale !== 1) for (let i = 0; i < columns.length; i++) columns[i] = columns[i]! / scale;
  const { factored, order } = factorizePivoted(columns, n);
  const x = factored.r.data.slice();
  orthogonalizeRows(x, n);
  const lengths = Float64Array.from({ length: n }, (_, p) => Math.sqrt(squaredLength(x, p * n, n)));
  const byLength = descending(lengths);
  const right = pickRows({ rows: n, cols: n, data: x }, byLength);
  const singularValues = Float64Array.from(byLength, (p) => lengths[p]!);
  const rank = singularValues.findLastIndex((value) => value > 0) + 1;
  for (let row = 0; row < rank; row++) {
    for (let i = row * n; i < row * n + n; i++) right.data[i] = right.data[i]! / singularValues[row]!;
  }
  if (rank < n) completeRows(right, rank);
  const scaled = factorize(transpose(matmul(factored.r, right, { transposeB: true })).data, n, n);
  const signs = matrix(n, n);
  for (let j = 0; j < n; j++) signs.data[j * n + j] = scaled.r.data[j * n + j]! < 0 ? -1 : 1;
  const vt = matrix(n, n);
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < n; i++) vt.data[row * n + order[i]!] = right.data[row * n + i]!;
  }
  return {
    u: applyQ(factored, applyQ(scaled, signs)),
    singularValues: singularValues.map((value) => value * scale),
    vt,
  };
}

/**
 * Rotates the n rows of length n until they are orthogonal, relative to their lengths. Convergence is quadratic: a sweep
 * that met only cosines below 2^-28 leaves them at rounding level.
 */
function orthogonalizeRows(x: Float64Array, n: number): void {
  const squares = new Float64Array(n);
  const tolerance = 2 ** -53 * Math.max(4, n);
  let largest = 1;
  for (let sweep = 0; largest > 2 ** -28 && sweep < MAX_SWEEPS; sweep++) {
    largest = 0;
    for (let p = 0; p < n; p++) squares[p] = squaredLength(x, p * n, n);
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const inner = dot(x, p * n, q * n, n);
        const cosine = Math.abs(inner) / (Math.sqrt(squares[p]!) * Math.sqrt(squares[q]!));
        if (!(cosine > tolerance)) continue; // also for a row of zeros, where it is NaN
        largest = Math.max(largest, cosine);
        const [cos, sin] = rotation(squares[p]!, squares[q]!, inner);
        rotateVectors(x, p * n, q * n, n, cos, sin);
        const moved = (sin / cos) * inner;
        squares[p] = squaredAfter(squares[p]!, -moved, x, p * n, n);
        squares[q] = squaredAfter(squares[q]!, moved, x, q * n, n);
      }
    }
  }
}

/** Householder QR of n columns of length n, each step taking the longest remaining column; `a` is overwritten. */
function factorizePivoted(a: Float64Array, n: number): { factored: Factored; order: number[] } {
  const v = new Float64Array(n * n);
  const tau = new Float64Array(n);
  const order = Array.from({ length: n }, (_, j) => j);
  const column = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    let pivot = j;
    let longest = -1;
    for (let c = j; c < n; c++) {
      const length = squaredLength(a, c * n + j, n - j);
      if (length > longest) {
        longest = length;
        pivot = c;
      }
    }
    if (pivot !== j) {
      column.set(a.subarray(j * n, (j + 1) * n));
      a.copyWithin(j * n, pivot * n, (pivot + 1) * n);
      a.set(column, pivot * n);
      [order[j], order[pivot]] = [order[pivot]!, order[j]!];
    }
    tau[j] = reflector(a, v, j, n);
    for (let c = j + 1; c < n; c++) reflect(a, c * n, v, j, n, tau[j]!);
  }
  const r = transpose({ rows: n, cols: n, data: a });
  for (let i = 1; i < n; i++) r.data.fill(0, i * n, i * n + i);
  return { factored: { rows: n, count: n, v, tau, r }, order };
}

/** Cosine and sine of the rotation that diagonalizes [[a, off], [off, b]] by the smaller angle. */
function rotation(a: number, b: number, off: number): [number, number] {
  const zeta = (b - a) / (2 * off);
  const root = Math.abs(zeta) > 2 ** 500 ? Math.abs(zeta) : Math.sqrt(1 + zeta * zeta);
  const tan = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + root);
  const cos = 1 / Math.sqrt(1 + tan * tan);
  return [cos, cos * tan];
}

function rotateVectors(x: Float64Array, p: number, q: number, n: number, cos: number, sin: number): void {
  for (let i = 0; i < n; i++) {
    const a = x[p + i]!;
    const b = x[q + i]!;
    x[p + i] = cos * a - sin * b;
    x[q + i] = sin * a + cos * b;
  }
}

/** The squared length after a rotation that changed it by `change`; measured again where that cancels digits. */
function squaredAfter(before: number, change: number, x: Float64Array, start: number, n: number): number {
  const after = before + change;
  return after > 0.1 * before ? after : squaredLength(x, start, n);
}

function squaredLength(x: Float64Array, start: number, n: number): number {
  return dot(x, start, start, n);
}

/** The inner product of two stretches of x, in two partial sums that the processor works on side by side. */
function dot(x: Float64Array, p: number, q: number, n: number): number {
  let even = 0;
  let odd = 0;
  let i = p;
  let j = q;
  for (const end = p + n - 1; i < end; i += 2, j += 2) {
    even += x[i]! * x[j]!;
    odd += x[i + 1]! * x[j + 1]!;
  }
  if (n % 2 === 1) even += x[i]! * x[j]!;
  return even + odd;
}

/** Replaces the rows from `rank` on by an orthonormal completion of the first ones. */
function completeRows(rows: Matrix, rank: number): void {
  const n = rows.cols;
  const factored = factorize(rows.data.slice(0, rank * n), n, rank);
  const spare = matrix(n, n - rank); // the columns of Q beyond the first `rank`
  for (let j = 0; j < n - rank; j++) spare.data[(rank + j) * spare.cols + j] = 1;
  const full = { ...factored, count: n, v: padded(factored.v, n * n), tau: padded(factored.tau, n) };
  rows.data.set(transpose(applyQ(full, spare)).data, rank * n);
}

function padded(values: Float64Array, length: number): Float64Array {
  const out = new Float64Array(length);
  out.set(values);
  return out;
}

/** 1 where squares of the entries neither overflow nor vanish, else the power of two next to the largest. */
function powerOfTwoScale(values: Float64Array): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > largest || Number.isNaN(magnitude)) largest = magnitude;
  }
  if (!(largest < Number.POSITIVE_INFINITY))
    throw new RangeError("linalg: the matrix holds NaN or an infinity");
  if (largest === 0 || (largest > 2 ** -300 && largest < 2 ** 300)) return 1;
  return largest < 1 ? 2 ** -600 : 2 ** 600;
}

function identity(n: number): Matrix {
  const out = matrix(n, n);
  for (let i = 0; i < n; i++) out.data[i * n + i] = 1;
  return out;
}

function pickRows({ cols, data }: Matrix, order: readonly number[]): Matrix {
  const out = matrix(order.length, cols);
  order.forEach((from, to) => {
    out.data.set(data.subarray(from * cols, (from + 1) * cols), to * cols);
  });
  return out;
}

/** Indices in descending order of the values, equal ones in their order. */
function descending(values: Float64Array): number[] {
  return Array.from(values, (_, i) => i).sort((i, j) => values[j]! - values[i]! || i - j);
}
