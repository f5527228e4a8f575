import { describe, expect, it } from "vitest";
import { pairedDifference, spreadOf } from "../../src/sweep/statistics.ts";

describe("the spread over seeds", () => {
  it("is the mean and the sample standard deviation", () => {
    // Squares of the differences from 5: 9, 1, 1, 1, 0, 0, 4, 16; their sum over 7.
    const { mean, deviation, n } = spreadOf([2, 4, 4, 4, 5, 5, 7, 9]) ?? {};
    expect([mean, n]).toEqual([5, 8]);
    expect(deviation).toBeCloseTo(Math.sqrt(32 / 7), 14);
  });

  it("is without a deviation for one value, and nothing for none", () => {
    expect(spreadOf([0.1])).toEqual({ mean: 0.1, n: 1 });
    expect(spreadOf([])).toBeUndefined();
  });

  it("is exactly zero for equal values whose sum is rounded", () => {
    expect(spreadOf([0.1, 0.1, 0.1])).toEqual({ mean: 0.1, deviation: 0, n: 3 });
  });
});

describe("the difference of two methods", () => {
  it("pairs seeds that both have, with the standard error of the mean difference", () => {
    const reference = new Map([
      [1, 0.5],
      [2, 0.6],
      [3, 0.7],
      [4, 0.9],
    ]);
    const values = new Map([
      [3, 0.9],
      [1, 0.6],
      [2, 0.9],
      [7, 0.1],
    ]);
    // Differences 0.1, 0.3, 0.2: mean 0.2, deviation 0.1.
    const { mean, standardError, n } = pairedDifference(values, reference) ?? {};
    expect(mean).toBeCloseTo(0.2, 14);
    expect(standardError).toBeCloseTo(0.1 / Math.sqrt(3), 14);
    expect(n).toBe(3);
  });

  it("is nothing without a common seed, and has no error for one", () => {
    expect(pairedDifference(new Map([[1, 1]]), new Map([[2, 1]]))).toBeUndefined();
    expect(pairedDifference(new Map([[2, 1.5]]), new Map([[2, 1]]))).toEqual({ mean: 0.5, n: 1 });
  });
});
