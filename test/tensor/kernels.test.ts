import { describe, expect, test } from "vitest";
import { addDots, rotor } from "../../src/tensor/kernels.ts";
import { type LowRankTerm, sumInner, svd, svdOfSum } from "../../src/tensor/linalg.ts";
import {
  columnVectors,
  combinations,
  gram,
  type Matrix,
  matmul,
  matrix,
  rowVectors,
  transpose,
} from "../../src/tensor/matrix.ts";
import { stream } from "../../src/tensor/random.ts";

function random(rows: number, cols: number, seed = 1): Matrix {
  const out = matrix(rows, cols);
  stream({ seed, purpose: `${rows} x ${cols}` }).fillNormal(out.data, 0, 1);
  return out;
}

function inner(a: Matrix, i: number, b: Matrix, j: number): number {
  let sum = 0;
  for (let t = 0; t < a.cols; t++) sum += a.data[i * a.cols + t]! * b.data[j * b.cols + t]!;
  return sum;
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
}

// Sums of up to 700 products of magnitude 1 in another order.
const TIGHT = 1e-12;

describe("kernels", () => {
  test.each([
    [1, 1, 1],
    [5, 3, 7],
    [4, 4, 256],
    [9, 6, 257],
    [13, 2, 700],
    [3, 2, 0],
    [600, 3, 2],
    [2, 515, 5],
  ])("give the inner products of %i and %i vectors of length %i", (m, n, length) => {
    const x = random(m, length);
    const y = random(n, length, 2);
    const expected = Array.from({ length: m * n }, (_, k) => inner(x, Math.floor(k / n), y, k % n));
    const out = new Float64Array(m * n).fill(1);
    addDots(out, [rowVectors(x)], [columnVectors(transpose(y))]);
    expect(
      largestDifference(
        out,
        expected.map((sum) => sum + 1),
      ),
    ).toBeLessThan(TIGHT);
  });

  test("give the products of more vectors with each other than fit together", () => {
    const x = random(1030, 3);
    const expected = Array.from({ length: 1030 ** 2 }, (_, k) => inner(x, Math.floor(k / 1030), x, k % 1030));
    expect(largestDifference(gram([rowVectors(x)]).data, expected)).toBeLessThan(TIGHT);
  });

  test("take vectors from several places and float32 values as they are", () => {
    const a = random(3, 300);
    const b = random(300, 6, 2);
    const rounded = { ...b, data: new Float32Array(b.data) };
    const both = matrix(9, 300, [...a.data, ...transpose(rounded).data]);
    const expected = Array.from({ length: 81 }, (_, k) => inner(both, Math.floor(k / 9), both, k % 9));
    expect(largestDifference(gram([rowVectors(a), columnVectors(rounded)]).data, expected)).toBeLessThan(
      TIGHT,
    );
  });

  test.each([
    [6, 5, 300],
    [1, 1, 3],
    [10, 9, 256],
    [2, 520, 3],
  ])("combine %i vectors in %i ways, at length %i", (count, ways, length) => {
    const x = random(count, length);
    const w = random(count, ways, 2);
    const expected = new Float64Array(ways * length);
    for (let j = 0; j < ways; j++)
      for (let k = 0; k < count; k++)
        for (let t = 0; t < length; t++)
          expected[j * length + t]! += w.data[k * ways + j]! * x.data[k * length + t]!;
    expect(largestDifference(combinations([rowVectors(x)], w).data, expected)).toBeLessThan(TIGHT);
  });

  test("rotate two rows and leave the others", () => {
    const x = random(3, 11);
    const work = rotor(3, 11);
    for (let i = 0; i < 3; i++) work.rows.set(x.data.subarray(i * 11, (i + 1) * 11), i * work.width);
    expect(work.dot(0, 2)).toBeCloseTo(inner(x, 0, x, 2), 12);
    work.rotate(0, 2, 0.6, 0.8);
    const row = (i: number): number[] => [...work.rows.subarray(i * work.width, i * work.width + 11)];
    const [a, b, c] = [0, 1, 2].map((i) => [...x.data.subarray(i * 11, (i + 1) * 11)]) as [
      number[],
      number[],
      number[],
    ];
    expect(row(0)).toEqual(a.map((value, t) => 0.6 * value - 0.8 * c[t]!));
    expect(row(1)).toEqual(b);
    expect(row(2)).toEqual(a.map((value, t) => 0.8 * value + 0.6 * c[t]!));
  });

  test("refuse vectors of unequal length", () => {
    expect(() => gram([rowVectors(matrix(1, 3)), rowVectors(matrix(1, 4))])).toThrow(/lengths 3 and 4/);
  });
});

test("the inner product of a sum of products with a product is that of the dense matrices", () => {
  const terms = [3, 1, 2].map((rank, k) => ({
    coefficient: 0.5 - k,
    left: random(9, rank, k),
    right: random(rank, 7, 10 + k),
  }));
  const pair = { left: random(9, 2, 30), right: random(2, 7, 31) };
  const one = matmul(pair.left, pair.right).data;
  const expected = terms.reduce(
    (sum, { coefficient, left, right }) =>
      sum + coefficient * matmul(left, right).data.reduce((inner, x, i) => inner + x * one[i]!, 0),
    0,
  );
  expect(sumInner(terms, pair)).toBeCloseTo(expected, 11);
});

describe("svdOfSum of tall factors", () => {
  /** Eight terms of rank 4 around a common pair: the nearer they are, the worse the stack is conditioned. */
  function terms(drift: number): LowRankTerm[] {
    const [left, right] = [random(190, 4, 90), random(4, 140, 91)];
    return Array.from({ length: 8 }, (_, k) => ({
      coefficient: (k + 1) / 36,
      left: moved(left, random(190, 4, k), drift),
      right: moved(right, random(4, 140, 20 + k), drift),
    }));
  }

  function moved(x: Matrix, by: Matrix, drift: number): Matrix {
    return matrix(
      x.rows,
      x.cols,
      x.data.map((value, i) => value + drift * by.data[i]!),
    );
  }

  function denseSum(list: readonly LowRankTerm[]): Matrix {
    const out = matrix(190, 140);
    for (const { coefficient, left, right } of list)
      for (let i = 0; i < 190; i++)
        for (let k = 0; k < left.cols; k++)
          for (let j = 0; j < 140; j++)
            out.data[i * 140 + j]! += coefficient * left.data[i * left.cols + k]! * right.data[k * 140 + j]!;
    return out;
  }

  // 1: one pass over the Gram matrix; 1e-3: two; 1e-9 and 0: reflections.
  test.each([1, 1e-3, 1e-9, 0])("agrees with the dense decomposition where clients moved by %d", (drift) => {
    const list = terms(drift);
    const dense = svd(denseSum(list));
    const top = dense.singularValues[0]!;
    for (const kept of [Number.POSITIVE_INFINITY, 3]) {
      const sum = svdOfSum(list, kept);
      const { length } = sum.singularValues;
      expect(largestDifference(sum.singularValues, dense.singularValues.slice(0, length)) / top).toBeLessThan(
        1e-12,
      );
      expect((dense.singularValues[length] ?? 0) / top).toBeLessThan(1e-12);
      expect(sum.u.cols).toBe(Math.min(kept, length));
      expect(sum.vt.rows).toBe(Math.min(kept, length));
      for (let i = 0; i < 190; i++) {
        for (let j = 0; j < 3; j++) {
          const own = sum.u.data[i * sum.u.cols + j]!;
          expect(Math.abs(own - dense.u.data[i * dense.u.cols + j]!)).toBeLessThan(1e-10);
        }
      }
    }
    expect(svdOfSum(list).singularValues).toHaveLength(drift < 1e-6 ? 4 : 32);
  });
});
