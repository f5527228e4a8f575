import { addDots, combine, oneAfterTheOther, type Rotor, rotor, type Vectors } from "./kernels.ts";
import {
  columnVectors,
  combinations,
  type Factor,
  firstColumns,
  firstRows,
  gram,
  type Matrix,
  matmul,
  matrix,
  rowVectors,
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
  readonly left: Factor;
  readonly right: Factor;
}

/** An orthonormal basis Q of some vectors X = Q R. */
interface Basis {
  readonly r: Matrix;
  /** Q x */
  times(x: Matrix): Matrix;
}

/**
 * X = Q R with the vectors as columns: from their Gram matrix where they are many, long and independent, else by
 * Householder reflections.
 */
function basisOf(list: readonly Vectors[]): Basis {
  const length = list[0]?.length ?? 0;
  const count = list.reduce((sum, vectors) => sum + vectors.count, 0);
  const quick = count >= 32 && length >= 4 * count ? choleskyBasis(list) : undefined;
  if (quick) return quick;
  const columns = new Float64Array(count * length); // one after the other
  let column = 0;
  for (const { data, count, between, along } of list) {
    for (let k = 0; k < count; k++, column++) {
      for (let t = 0; t < length; t++) columns[column * length + t] = data[k * between + t * along]!;
    }
  }
  const factored = factorize(columns, length, count);
  return { r: factored.r, times: (x) => applyQ(factored, x) };
}

/**
 * How far from orthonormal a basis made of a Gram matrix may be, |Q^T Q - I|: the relative error of singular values. The
 * factors that clients send have 6e-8.
 */
const SKEW = 1e-9;

/** Loss of orthogonality after which a second pass would not repair the first. */
const HOPELESS = 1e-3;

/**
 * R from X^T X = R^T R with X scaled to unit columns, Q = X R^-1: half the work of reflections, all of it inner products.
 * Rounding in the Gram matrix, 2^-52 sqrt(n) in norm, costs Q orthogonality |R^-1|^2 times that; where this is too much,
 * the basis is made again from Q. Undefined where X is nearly dependent.
 * Yamamoto, Nakatsukasa, Yanagisawa and Fukaya, "Roundoff error analysis of the CholeskyQR2 algorithm", ETNA 2015.
 */
function choleskyBasis(list: readonly Vectors[]): Basis | undefined {
  const first = choleskyFactor(gram(list));
  if (!first || !(first.skew < HOPELESS)) return undefined;
  if (first.skew < SKEW) {
    return { r: first.r, times: (x) => transpose(combinations(list, matmul(first.inverse, x))) };
  }
  const q = rowVectors(combinations(list, first.inverse));
  const second = choleskyFactor(gram([q]));
  if (!second || !(second.skew < SKEW)) return undefined;
  return {
    r: matmul(second.r, first.r),
    times: (x) => transpose(combinations([q], matmul(second.inverse, x))),
  };
}

/** The triangle R of G = R^T R, its inverse, and what a basis made with it may lack in orthogonality. */
function choleskyFactor(
  g: Matrix,
): { readonly r: Matrix; readonly inverse: Matrix; readonly skew: number } | undefined {
  const n = g.rows;
  const scale = Float64Array.from({ length: n }, (_, i) => Math.sqrt(g.data[i * n + i]!));
  if (!scale.every((x) => x > 2 ** -300 && x < 2 ** 300)) return undefined;
  const lower = matrix(n, n); // R^T of the scaled matrix
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const sum = g.data[i * n + j]! / (scale[i]! * scale[j]!) - dot(lower.data, i * n, lower.data, j * n, j);
      if (i > j) lower.data[i * n + j] = sum / lower.data[j * n + j]!;
      else if (sum > n * 2 ** -52) lower.data[i * n + i] = Math.sqrt(sum);
      else return undefined;
    }
  }
  const inverse = matrix(n, n); // row j is column j of R^-T, which is row j of R^-1
  let squared = 0;
  for (let j = 0; j < n; j++) {
    for (let i = j; i < n; i++) {
      const sum = Number(i === j) - dot(lower.data, i * n + j, inverse.data, j * n + j, i - j);
      const entry = sum / lower.data[i * n + i]!;
      inverse.data[j * n + i] = entry;
      squared += entry * entry;
    }
  }
  const r = transpose(lower);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      r.data[i * n + j] = r.data[i * n + j]! * scale[j]!;
      inverse.data[i * n + j] = inverse.data[i * n + j]! / scale[i]!;
    }
  }
  return { r, inverse, skew: 2 ** -52 * Math.sqrt(n) * squared };
}

/** Thin QR by Householder reflections: q [rows, k] orthonormal, r [k, cols] upper triangular, k = min(rows, cols). */
export function qr(a: Matrix): { readonly q: Matrix; readonly r: Matrix } {
  const factored = factorize(transpose(a).data, a.rows, a.cols);
  return { q: applyQ(factored, identity(factored.count)), r: factored.r };
}

/** Thin singular value decomposition by one-sided Jacobi rotations after QR; signs as `fixSigns` sets them. */
export function svd(a: Matrix): Svd {
  return fixSigns(leadingOf(a));
}

/** All singular values and the vectors of the `kept` largest, signs as they come. */
function leadingOf(a: Matrix, kept: number = Number.POSITIVE_INFINITY): PartialSvd {
  if (a.rows < a.cols) {
    const { u, singularValues, vt } = leadingOf(transpose(a), kept);
    return { u: transpose(vt), singularValues, vt: transpose(u) };
  }
  if (a.rows === a.cols) return squareSvd(a, kept);
  const factored = factorize(transpose(a).data, a.rows, a.cols); // A = Q R
  const { u, singularValues, vt } = squareSvd(factored.r, kept);
  return { u: applyQ(factored, u), singularValues, vt };
}

/** The leading components of a decomposition, and all its singular values. */
export interface PartialSvd extends Svd {
  /** Descending; u and vt have vectors of the first ones only. */
  readonly singularValues: Float64Array;
}

/**
 * The compact SVD of `sum_k c_k B_k A_k`, [out, in], without forming it: orthonormal bases of the stacked factors, SVD of
 * the small product of their triangles. Singular values beyond the numerical rank are left out; a zero sum has none.
 * Vectors are those of the `kept` largest.
 */
export function svdOfSum(terms: readonly LowRankTerm[], kept: number = Number.POSITIVE_INFINITY): PartialSvd {
  const { rows, cols } = sizeOfSum("svdOfSum", terms);
  const left = basisOf(terms.map((term) => columnVectors(term.left))); // B = Q_B R_B
  const right = basisOf(terms.map((term) => rowVectors(term.right))); // A^T = Q_A R_A
  const scaled = { ...left.r, data: left.r.data.slice() };
  let column = 0;
  for (const { coefficient, left } of terms) {
    for (const end = column + left.cols; column < end; column++) {
      for (let i = 0; i < scaled.rows; i++) {
        scaled.data[i * scaled.cols + column] = scaled.data[i * scaled.cols + column]! * coefficient;
      }
    }
  }
  const small = leadingOf(matmul(scaled, right.r, { transposeB: true }), kept); // R_B C R_A^T
  const rank = numericalRank(small.singularValues, rows, cols);
  const count = Math.min(rank, kept);
  const u = left.times(firstColumns(small.u, count));
  const v = right.times(transpose(firstRows(small.vt, count)));
  return fixSigns({ u, singularValues: small.singularValues.slice(0, rank), vt: transpose(v) });
}

/** The stacked factors: `sum_k c_k B_k A_k = left @ right`, left [out, sum r], right [sum r, in]. */
export function stackTerms(terms: readonly LowRankTerm[]): { readonly left: Matrix; readonly right: Matrix } {
  const { rows, cols, total } = sizeOfSum("stackTerms", terms);
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

function sizeOfSum(
  who: string,
  terms: readonly LowRankTerm[],
): { readonly rows: number; readonly cols: number; readonly total: number } {
  const [first] = terms;
  if (first === undefined) throw new RangeError(`${who}: no terms, so the shape of their sum is unknown`);
  const rows = first.left.rows;
  const cols = first.right.cols;
  let total = 0;
  for (const { left, right } of terms) {
    if (left.rows !== rows || right.cols !== cols || left.cols !== right.rows) {
      throw new RangeError(
        `${who}: factors ${left.rows} x ${left.cols} and ${right.rows} x ${right.cols} in a sum of ${rows} x ${cols}`,
      );
    }
    total += left.cols;
  }
  return { rows, cols, total };
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
  first: { readonly left: Factor; readonly right: Factor },
  second: { readonly left: Factor; readonly right: Factor },
): number {
  const lefts = matmul(first.left, second.left, { transposeA: true });
  const rights = matmul(first.right, second.right, { transposeB: true });
  let sum = 0;
  for (let i = 0; i < lefts.data.length; i++) sum += lefts.data[i]! * rights.data[i]!;
  return sum;
}

/** `<sum_k c_k B_k A_k, B A>` from the factors. */
export function sumInner(
  terms: readonly LowRankTerm[],
  { left, right }: { readonly left: Factor; readonly right: Factor },
): number {
  const rank = left.cols;
  const c = terms.flatMap((term) => new Array<number>(term.left.cols).fill(term.coefficient));
  const lefts = new Float64Array(c.length * rank);
  const rights = new Float64Array(c.length * rank);
  addDots(
    lefts,
    terms.map((term) => columnVectors(term.left)),
    [columnVectors(left)],
  );
  addDots(
    rights,
    terms.map((term) => rowVectors(term.right)),
    [rowVectors(right)],
  );
  let sum = 0;
  for (let i = 0; i < c.length; i++) {
    for (let j = i * rank; j < (i + 1) * rank; j++) sum += c[i]! * (lefts[j]! * rights[j]!);
  }
  return sum;
}

/**
 * `||sum_k c_k B_k A_k||^2` (Frobenius) from the factors. Cancellation hides sums below about 1e-8 of the largest term:
 * for those take the singular values of `svdOfSum`.
 */
export function productNormSquared(terms: readonly LowRankTerm[]): number {
  sizeOfSum("productNormSquared", terms);
  const lefts = gram(terms.map(({ left }) => columnVectors(left)));
  const rights = gram(terms.map(({ right }) => rowVectors(right)));
  const c = terms.flatMap(({ coefficient, left }) => new Array<number>(left.cols).fill(coefficient));
  let sum = 0;
  for (let i = 0; i < c.length; i++) {
    for (let j = 0; j < c.length; j++) {
      const at = i * c.length + j;
      sum += c[i]! * c[j]! * (lefts.data[at]! * rights.data[at]!);
    }
  }
  return Math.max(0, sum);
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
    addDots(w, [oneAfterTheOther(panel, width, rows)], [oneAfterTheOther(rest, trailing, rows)]);
    const t = triangle(panel, tau.subarray(p, end), rows);
    for (let c = 0; c < trailing; c++) {
      for (let i = width - 1; i >= 0; i--) {
        let sum = 0;
        for (let k = 0; k <= i; k++) sum += t[k * width + i]! * w[k * trailing + c]!;
        w[i * trailing + c] = sum;
      }
    }
    subtractCombinations(rest, trailing, oneAfterTheOther(panel, width, rows), w);
  }
  const r = matrix(count, cols);
  for (let i = 0; i < count; i++) {
    for (let j = i; j < cols; j++) r.data[i * cols + j] = a[j * rows + i]! * scale;
  }
  return { rows, count, v, tau, r };
}

/** `y_j -= sum_i w[i, j] x_i` for vectors y that lie one after the other. */
function subtractCombinations(y: Float64Array, yCount: number, x: Vectors, w: Float64Array): void {
  combine([x], w, yCount, (j, start, values) => {
    const to = j * x.length + start;
    for (let t = 0; t < values.length; t++) y[to + t] = y[to + t]! - values[t]!;
  });
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
  const factor = tau * dot(v, base + j, a, offset + j, rows - j);
  for (let i = j; i < rows; i++) a[offset + i] = a[offset + i]! - factor * v[base + i]!;
}

/** The upper triangular T of I - V T V^T, [count, count]. Schreiber and Van Loan, 1989. */
function triangle(v: Float64Array, tau: Float64Array, rows: number): Float64Array {
  const count = tau.length;
  const gram = new Float64Array(count * count);
  addDots(gram, [oneAfterTheOther(v, count, rows)]);
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
  subtractCombinations(columns, width, oneAfterTheOther(v, count, rows), weights.data);
  return transpose({ rows: width, cols: rows, data: columns });
}

/**
 * One-sided Jacobi for a square matrix. It is factored with pivoting, R P = Q_2 R_2, which orders the rows of R_2
 * and so saves sweeps; rotations then make those rows orthogonal. Their norms are the singular values, their directions
 * the right vectors; the left ones are the orthonormal factor of R_2 V, whose columns are u_j sigma_j.
 * Drmac and Veselic, "New fast and accurate Jacobi SVD algorithm", 2008.
 */
function squareSvd(r: Matrix, kept: number): PartialSvd {
  const n = r.rows;
  const count = Math.min(n, kept);
  const columns = transpose(r).data;
  const scale = powerOfTwoScale(columns);
  if (scale !== 1) for (let i = 0; i < columns.length; i++) columns[i] = columns[i]! / scale;
  const { factored, order } = factorizePivoted(columns, n);
  const { rows, lengths } = orthogonalRows(factored.r);
  const byLength = descending(lengths);
  const singularValues = Float64Array.from(byLength, (p) => lengths[p]!);
  const right = pickRows(rows, byLength.slice(0, count));
  const rank = Math.min(count, singularValues.findLastIndex((value) => value > 0) + 1);
  for (let row = 0; row < rank; row++) {
    for (let i = row * n; i < row * n + n; i++) right.data[i] = right.data[i]! / singularValues[row]!;
  }
  if (rank < count) completeRows(right, rank);
  const scaled = factorize(transpose(matmul(factored.r, right, { transposeB: true })).data, n, count);
  const signs = matrix(count, count);
  for (let j = 0; j < count; j++) signs.data[j * count + j] = scaled.r.data[j * count + j]! < 0 ? -1 : 1;
  const vt = matrix(count, n);
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < n; i++) vt.data[row * n + order[i]!] = right.data[row * n + i]!;
  }
  return {
    u: applyQ(factored, applyQ(scaled, signs)),
    singularValues: singularValues.map((value) => value * scale),
    vt,
  };
}

/**
 * The rows of a square matrix rotated until they are orthogonal, relative to their lengths, and these lengths.
 * Convergence is quadratic: a sweep that met only cosines below 2^-28 leaves them at rounding level.
 */
function orthogonalRows({ rows: n, data }: Matrix): {
  readonly rows: Matrix;
  readonly lengths: Float64Array;
} {
  const squares = new Float64Array(n);
  const tolerance = 2 ** -53 * Math.max(4, n);
  const work = rotor(n, n);
  for (let p = 0; p < n; p++) work.rows.set(data.subarray(p * n, (p + 1) * n), p * work.width);
  let largest = 1;
  for (let sweep = 0; largest > 2 ** -28 && sweep < MAX_SWEEPS; sweep++) {
    largest = 0;
    for (let p = 0; p < n; p++) squares[p] = work.dot(p, p);
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        const inner = work.dot(p, q);
        const cosine = Math.abs(inner) / (Math.sqrt(squares[p]!) * Math.sqrt(squares[q]!));
        if (!(cosine > tolerance)) continue; // also for a row of zeros, where it is NaN
        largest = Math.max(largest, cosine);
        const [cos, sin] = rotation(squares[p]!, squares[q]!, inner);
        work.rotate(p, q, cos, sin);
        const moved = (sin / cos) * inner;
        squares[p] = squaredAfter(squares[p]!, -moved, work, p);
        squares[q] = squaredAfter(squares[q]!, moved, work, q);
      }
    }
  }
  const rows = matrix(n, n);
  for (let p = 0; p < n; p++) rows.data.set(work.rows.subarray(p * work.width, p * work.width + n), p * n);
  return { rows, lengths: Float64Array.from({ length: n }, (_, p) => Math.sqrt(work.dot(p, p))) };
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
function squaredAfter(before: number, change: number, work: Rotor, row: number): number {
  const after = before + change;
  return after > 0.1 * before ? after : work.dot(row, row);
}

function squaredLength(x: Float64Array, start: number, n: number): number {
  return dot(x, start, x, start, n);
}

/** The inner product of two stretches, in four partial sums that the processor works on side by side. */
function dot(x: Float64Array, p: number, y: Float64Array, q: number, n: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = p;
  let j = q;
  for (const end = p + n - 3; i < end; i += 4, j += 4) {
    s0 += x[i]! * y[j]!;
    s1 += x[i + 1]! * y[j + 1]!;
    s2 += x[i + 2]! * y[j + 2]!;
    s3 += x[i + 3]! * y[j + 3]!;
  }
  for (const end = p + n; i < end; i++, j++) s0 += x[i]! * y[j]!;
  return s0 + s1 + (s2 + s3);
}

/** Replaces the rows from `rank` on by an orthonormal completion of the first ones. */
function completeRows(rows: Matrix, rank: number): void {
  const n = rows.cols;
  const factored = factorize(rows.data.slice(0, rank * n), n, rank);
  const spare = matrix(n, rows.rows - rank); // columns of Q beyond the first `rank`
  for (let j = 0; j < spare.cols; j++) spare.data[(rank + j) * spare.cols + j] = 1;
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
