import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { topK } from "../../src/tensor/top-k.ts";

describe("topK", () => {
  it("takes the largest magnitudes, of equal ones the first", () => {
    expect([...topK(Float64Array.of(0.5, -0.5, 0.25, 0.5, 0), 2)]).toEqual([0, 1]);
    expect([...topK(Float64Array.of(0, 0, 1), 2)]).toEqual([0, 2]);
    expect([...topK(Float32Array.of(0.25, -2, 2, 5), 3)]).toEqual([1, 2, 3]);
    expect([...topK(Float32Array.of(1, 1, 3, 1, -3), 3)]).toEqual([0, 2, 4]);
  });

  it("takes nothing at 0 and everything beyond the length", () => {
    expect([...topK(Float64Array.of(3, -4), 0)]).toEqual([]);
    expect([...topK(Float64Array.of(3, -4), 9)]).toEqual([0, 1]);
    expect([...topK(new Float32Array(0), 3)]).toEqual([]);
  });

  it("agrees with a stable sort by magnitude", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -3, max: 3 })), fc.nat(12), (list, k) => {
        const values = Float64Array.from(list);
        const sorted = [...values.keys()].sort((i, j) => Math.abs(values[j] ?? 0) - Math.abs(values[i] ?? 0));
        expect([...topK(values, k)]).toEqual(sorted.slice(0, k).sort((i, j) => i - j));
      }),
    );
  });
});
