import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  type LowRankTerm,
  leadingSvd,
  numericalRank,
  productInner,
  productNormSquared,
  qr,
  rangeFinder,
  type Svd,
  svd,
  svdOfSum,
  symmetricEigen,
  truncate,
} from "../../src/tensor/linalg.ts";
import {
  type Factor,
  type Matrix,
  matmul,
  matrix,
  matrixOf,
  tensorOf,
  transpose,
} from "../../src/tensor/matrix.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32 } from "../../src/tensor/tensor.ts";

// Spectra by NumPy 2.4 of the matrices that the tests below spell out.
const spectra: { hilbert: number[]; sum: number[]; rank: number; symmetric: number[] } = JSON.parse(
  readFileSync(new URL("spectra.json", import.meta.url), "utf8"),
);

function random(rows: number, cols: number, seed = 1): Matrix {
  const out = matrix(rows, cols);
  stream({ seed, purpose: `${rows} x ${cols}` }).fillNormal(out.data, 0, 1);
  return out;
}

function fill(rows: number, cols: number, entry: (i: number, j: number) => number): Matrix {
  return matrix(
    rows,
    cols,
    Array.from({ length: rows * cols }, (_, k) => entry(Math.floor(k / cols), k % cols)),
  );
}

function naive(a: Factor, b: Factor): Matrix {
  return fill(a.rows, b.cols, (i, j) => {
    let sum = 0;
    for (let k = 0; k < a.cols; k++) sum += a.data[i * a.cols + k]! * b.data[k * b.cols + j]!;
    return sum;
  });
}

function distance(a: Matrix, b: Matrix): number {
  expect([a.rows, a.cols]).toEqual([b.rows, b.cols]);
  return Math.sqrt(a.data.reduce((sum, x, i) => sum + (x - b.data[i]!) ** 2, 0));
}

function rebuild({ u, singularValues, vt }: Svd): Matrix {
  return naive(
    fill(u.rows, u.cols, (i, j) => u.data[i * u.cols + j]! * singularValues[j]!),
    vt,
  );
}

/** ||X^T X - I||, zero for orthonormal columns. */
function skewness(x: Matrix): number {
  return distance(
    naive(transpose(x), x),
    fill(x.cols, x.cols, (i, j) => (i === j ? 1 : 0)),
  );
}

// Backward errors of Householder and Jacobi methods are small multiples of n 2^-53.
const TIGHT = 1e-12;

describe("matmul", () => {
  it.each([
    [5, 7, 3],
    [1, 1, 1],
    [13, 700, 9],
    [4, 0, 2],
  ])("%i x %i times x %i agrees with the triple loop, in all transpositions", (m, k, n) => {
    const a = random(m, k);
    const b = random(k, n, 2);
    const expected = naive(a, b);
    expect(distance(matmul(a, b), expected)).toBeLessThan(TIGHT);
    expect(distance(matmul(transpose(a), b, { transposeA: true }), expected)).toBeLessThan(TIGHT);
    expect(distance(matmul(a, transpose(b), { transposeB: true }), expected)).toBeLessThan(TIGHT);
    expect(
      distance(matmul(transpose(a), transpose(b), { transposeA: true, transposeB: true }), expected),
    ).toBeLessThan(TIGHT);
  });

  it("refuses inner dimensions that differ, and shapes that do not fit", () => {
    expect(() => matmul(matrix(2, 3), matrix(2, 3))).toThrow(/inner dimensions 3 and 2/);
    expect(() => matrix(2, 3, [1])).toThrow(/2 x 3 needs 6 values, got 1/);
    expect(() => matrixOf(float32([4], [1, 2, 3, 4]))).toThrow(/two dimensions/);
  });

  it("goes to tensors and back", () => {
    const t = float32([2, 3], [1, 2, 3, 4, 5, 6.5]);
    expect(tensorOf(matrixOf(t))).toEqual(t);
    expect(matrixOf(t)).toEqual(matrix(2, 3, [1, 2, 3, 4, 5, 6.5]));
  });
});

describe("qr", () => {
  it.each([
    [9, 4],
    [4, 9],
    [300, 75],
    [1, 5],
    [5, 1],
  ])("of %i x %i has orthonormal q, triangular r, and their product is the matrix", (rows, cols) => {
    const a = random(rows, cols);
    const { q, r } = qr(a);
    expect(skewness(q)).toBeLessThan(TIGHT);
    expect(distance(matmul(q, r), a)).toBeLessThan(TIGHT);
    for (let i = 0; i < r.rows; i++)
      for (let j = 0; j < Math.min(i, r.cols); j++) expect(r.data[i * r.cols + j]).toBe(0);
  });

  it("holds for deficient, zero, huge and tiny matrices", () => {
    const low = naive(random(40, 3), random(3, 36, 2));
    for (const scale of [1, 0, 2 ** 900, 2 ** -900]) {
      const a = { ...low, data: low.data.map((x) => x * scale) };
      const { q, r } = qr(a);
      expect(skewness(q)).toBeLessThan(TIGHT);
      const error = matmul(q, r).data.map((x, i) => (x - a.data[i]!) / (scale || 1));
      expect(Math.max(...error.map(Math.abs))).toBeLessThan(TIGHT);
    }
    expect(() => qr(matrix(1, 2, [Number.NaN, 1]))).toThrow(/NaN/);
  });
});

describe("svd", () => {
  const hilbert = fill(7, 5, (i, j) => 1 / (i + 2 * j + 1));

  it("has the singular values that NumPy finds, small ones included", () => {
    const { singularValues } = svd(hilbert);
    for (const [j, expected] of spectra.hilbert.entries()) {
      expect(Math.abs((singularValues[j] ?? Number.NaN) - expected)).toBeLessThan(1e-15);
    }
  });

  it.each([
    [7, 5],
    [5, 7],
    [90, 61],
    [33, 33],
    [1, 4],
    [0, 3],
  ])("of %i x %i is orthonormal, descending, signed, and rebuilds the matrix", (rows, cols) => {
    const a = random(rows, cols);
    const result = svd(a);
    expect(skewness(result.u)).toBeLessThan(TIGHT);
    expect(skewness(transpose(result.vt))).toBeLessThan(TIGHT);
    expect(distance(rebuild(result), a)).toBeLessThan(TIGHT);
    expect(Array.from(result.singularValues)).toEqual(
      Array.from(result.singularValues).sort((x, y) => y - x),
    );
    for (let j = 0; j < result.u.cols; j++) {
      const column = Array.from({ length: rows }, (_, i) => result.u.data[i * result.u.cols + j]!);
      expect(Math.max(...column)).toBe(Math.max(...column.map(Math.abs)));
    }
  });

  it("completes the vectors of a deficient and of a zero matrix", () => {
    for (const a of [naive(random(12, 3), random(3, 8, 2)), matrix(6, 4), matrix(4, 6)]) {
      const result = svd(a);
      expect(skewness(result.u)).toBeLessThan(TIGHT);
      expect(skewness(transpose(result.vt))).toBeLessThan(TIGHT);
      expect(distance(rebuild(result), a)).toBeLessThan(TIGHT);
    }
    expect(numericalRank(svd(naive(random(12, 3), random(3, 8, 2))).singularValues, 12, 8)).toBe(3);
    expect(numericalRank([], 3, 3)).toBe(0);
  });

  it("survives entries whose squares leave the range of float64", () => {
    for (const scale of [2 ** 700, 2 ** -700]) {
      const { singularValues } = svd({ ...hilbert, data: hilbert.data.map((x) => x * scale) });
      expect(Math.abs((singularValues[0] ?? 0) / scale - (spectra.hilbert[0] ?? 0))).toBeLessThan(1e-14);
    }
  });

  it("truncated to rank q misses the matrix by the root of the dropped squares (Eckart and Young)", () => {
    const a = random(20, 11);
    const full = svd(a);
    const dropped = Math.sqrt(full.singularValues.slice(4).reduce((sum, s) => sum + s * s, 0));
    expect(Math.abs(distance(rebuild(truncate(full, 4)), a) - dropped)).toBeLessThan(TIGHT);
  });
});

describe("svdOfSum", () => {
  const terms: LowRankTerm[] = [0.5, 0.3, 0.2].map((coefficient, k) => ({
    coefficient,
    left: fill(6, 2, (i, j) => ((3 * i + 5 * j + 7 * k) % 11) - 5),
    right: fill(2, 9, (i, j) => ((2 * i + 7 * j + 3 * k) % 13) - 6),
  }));
  const dense = (list: readonly LowRankTerm[]): Matrix =>
    list
      .map(({ coefficient, left, right }) => ({ c: coefficient, p: naive(left, right) }))
      .reduce((sum, { c, p }) => ({ ...p, data: sum.data.map((x, i) => x + c * p.data[i]!) }), {
        rows: list[0]?.left.rows ?? 0,
        cols: list[0]?.right.cols ?? 0,
        data: new Float64Array((list[0]?.left.rows ?? 0) * (list[0]?.right.cols ?? 0)),
      });

  it("has the singular values and the rank that NumPy finds for the dense sum", () => {
    const { singularValues } = svdOfSum(terms);
    expect(singularValues.length).toBe(spectra.rank);
    for (const [j, value] of singularValues.entries())
      expect(Math.abs(value - spectra.sum[j]!)).toBeLessThan(1e-12);
  });

  it.each([
    [50, 30, [2, 3, 4]],
    [30, 50, [8, 8]],
    [6, 40, [4, 4, 4]],
    [9, 7, [20, 20]],
    [1, 1, [3]],
  ])("rebuilds the sum of %i x %i terms of ranks %j, also beyond full rank", (rows, cols, ranks) => {
    const list = ranks.map((rank, k) => ({
      coefficient: 1 / (k + 1),
      left: random(rows, rank, k + 10),
      right: random(rank, cols, k + 20),
    }));
    const result = svdOfSum(list);
    expect(distance(rebuild(result), dense(list))).toBeLessThan(TIGHT);
    expect(skewness(result.u)).toBeLessThan(TIGHT);
    expect(skewness(transpose(result.vt))).toBeLessThan(TIGHT);
    expect(result.singularValues.length).toBe(
      Math.min(
        rows,
        cols,
        ranks.reduce((a, b) => a + b, 0),
      ),
    );
  });

  it("finds the rank of sums with shared, cancelling and zero factors", () => {
    const left = random(20, 4);
    const right = random(4, 15);
    expect(
      svdOfSum([
        { coefficient: 1, left, right },
        { coefficient: 2, left, right },
      ]).singularValues.length,
    ).toBe(4);
    const shared = [1, 2, 3].map((seed) => ({ coefficient: 1, left: random(20, 4, seed), right }));
    expect(svdOfSum(shared).singularValues.length).toBe(4);
    const zero = svdOfSum([{ coefficient: 1, left: matrix(20, 4), right }]);
    expect([zero.u.cols, zero.singularValues.length, zero.vt.rows]).toEqual([0, 0, 0]);
    expect(() => svdOfSum([])).toThrow(/no terms/);
    expect(() => svdOfSum([{ coefficient: 1, left, right: random(5, 15) }])).toThrow(/20 x 4 and 5 x 15/);
  });

  it("agrees with the norms that the factors give alone", () => {
    const { singularValues } = svdOfSum(terms);
    const squares = singularValues.reduce((sum, s) => sum + s * s, 0);
    expect(Math.abs(productNormSquared(terms) / squares - 1)).toBeLessThan(TIGHT);
    const [x, y] = [
      { left: random(8, 2), right: random(2, 5) },
      { left: random(8, 3, 2), right: random(3, 5, 2) },
    ];
    const inner = naive(x.left, x.right).data.reduce(
      (sum, a, i) => sum + a * naive(y.left, y.right).data[i]!,
      0,
    );
    expect(Math.abs(productInner(x, y) - inner)).toBeLessThan(TIGHT);
  });
});

describe("symmetricEigen", () => {
  it("has the eigenvalues that NumPy finds and vectors that diagonalize the matrix", () => {
    const a = fill(6, 6, (i, j) => 1 / (i + j + 1) - (i === j ? 0.3 : 0));
    const { values, vectors } = symmetricEigen(a);
    for (const [j, expected] of spectra.symmetric.entries())
      expect(Math.abs(values[j]! - expected)).toBeLessThan(1e-14);
    expect(skewness(vectors)).toBeLessThan(TIGHT);
    const scaled = fill(6, 6, (i, j) => vectors.data[i * 6 + j]! * values[j]!);
    expect(distance(naive(scaled, transpose(vectors)), a)).toBeLessThan(TIGHT);
    expect(() => symmetricEigen(matrix(2, 3))).toThrow(/square/);
  });

  it("of a Gram matrix gives the squared singular values", () => {
    const a = random(40, 25);
    const { values } = symmetricEigen(matmul(a, a, { transposeA: true }));
    for (const [j, s] of svd(a).singularValues.entries())
      expect(Math.abs(values[j]! - s * s)).toBeLessThan(1e-11);
  });
});

describe("randomized range finder", () => {
  /** Rank 6 plus noise of a thousandth. */
  const noisy = (rows: number, cols: number): Matrix => {
    const signal = naive(random(rows, 6), random(6, cols, 2));
    const noise = random(rows, cols, 3);
    return { ...signal, data: signal.data.map((x, i) => x + 1e-3 * noise.data[i]!) };
  };

  it("spans the leading subspace and depends on its stream alone", () => {
    const a = noisy(120, 80);
    const key = { seed: 1, purpose: "range" };
    const basis = rangeFinder(a, 6, stream(key));
    expect(skewness(basis)).toBeLessThan(TIGHT);
    expect(basis.cols).toBe(14);
    expect(rangeFinder(a, 6, stream(key))).toEqual(basis);
    const lead = truncate(svd(a), 6).u;
    const outside = distance(lead, matmul(basis, matmul(basis, lead, { transposeA: true })));
    expect(outside).toBeLessThan(1e-8);
  });

  it("gives the leading components of a matrix too large for the exact way", () => {
    const a = noisy(530, 520);
    const result = leadingSvd(a, 6, stream({ seed: 1, purpose: "lead" }));
    const signal = naive(random(530, 6), random(6, 520, 2));
    const exact = svdOfSum([{ coefficient: 1, left: random(530, 6), right: random(6, 520, 2) }]);
    expect(distance(rebuild(result), signal)).toBeLessThan(0.3); // the noise has norm 0.52, the components see part of it
    for (const [j, s] of result.singularValues.entries())
      expect(Math.abs(s / exact.singularValues[j]! - 1)).toBeLessThan(1e-3);
  });
});
