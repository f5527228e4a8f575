import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  add,
  addScaled,
  firstNonFinite,
  mapParams,
  norm,
  type Params,
  scale,
  select,
  sortedNames,
  squaredDistance,
  sub,
  weightedMean,
  zerosLike,
} from "../../src/tensor/params.ts";
import { float32, tensor } from "../../src/tensor/tensor.ts";

const make = (a: number[], b: number[]): Params =>
  new Map([
    ["b", float32([1, a.length], a)],
    ["a", float32([b.length], b)],
  ]);
const x = make([1, 2, 3], [4, -5]);
const y = make([0.5, 0, -1], [2, 2]);
const numbers = (params: Params): number[] =>
  [...params.values()].flatMap(({ data }) => Array.from(data, Number));

describe("params algebra", () => {
  it("works entry by entry and leaves its inputs alone", () => {
    const before = numbers(x);
    expect(numbers(add(x, y))).toEqual([1.5, 2, 2, 6, -3]);
    expect(numbers(sub(x, y))).toEqual([0.5, 2, 4, 2, -7]);
    expect(numbers(addScaled(x, -2, y))).toEqual([0, 2, 5, 0, -9]);
    expect(numbers(scale(x, 3))).toEqual([3, 6, 9, 12, -15]);
    expect(numbers(zerosLike(x))).toEqual([0, 0, 0, 0, 0]);
    expect(numbers(x)).toEqual(before);
    expect(add(x, y).get("b")?.shape).toEqual([1, 3]);
  });

  it("computes in float64 and rounds once", () => {
    const [a, b] = [new Map([["w", float32([1], [1])]]), new Map([["w", float32([1], [3 * 2 ** -25])]])];
    expect(numbers(addScaled(a, 1 / 3, b))).toEqual([Math.fround(1 + 2 ** -25)]);
  });

  it("measures norms and distances", () => {
    expect(norm(x)).toBe(Math.sqrt(55));
    expect(squaredDistance(x, y)).toBe(0.25 + 4 + 16 + 4 + 49);
  });

  it("orders, selects and maps names", () => {
    expect(sortedNames(x)).toEqual(["a", "b"]);
    expect([...select(x, (name) => name === "a").keys()]).toEqual(["a"]);
    expect(numbers(mapParams(x, (t, name) => (name === "a" ? float32([1], [9]) : t)))).toEqual([1, 2, 3, 9]);
  });

  it("names the first tensor that is not finite", () => {
    expect(firstNonFinite(x)).toBeUndefined();
    expect(firstNonFinite(make([1, Infinity, 0], [Number.NaN]))).toBe("a");
    expect(firstNonFinite(make([1, -Infinity, 0], [0]))).toBe("b");
  });

  it("lists missing and surplus names, and says which shape or dtype differs", () => {
    const other = new Map([...x, ["c", float32([1], [0])]]);
    expect(() =>
      add(
        x,
        select(other, (name) => name !== "a"),
      ),
    ).toThrow(/add: the names differ: missing a; surplus c/);
    expect(() => sub(x, make([1, 2], [4, -5]))).toThrow(/b is float32 \[1,2\], expected float32 \[1,3\]/);
    const half = new Map([["h", tensor("float16", [1], Uint16Array.of(0))]]);
    expect(() => scale(half, 2)).toThrow(/h is float16, expected float32 or float64; widen it first/);
    expect(() => weightedMean([half], [1])).toThrow(/widen it first/);
  });
});

describe("weightedMean", () => {
  it("is the mean weighted by any positive numbers", () => {
    expect(numbers(weightedMean([x, y], [3, 1]))).toEqual([0.875, 1.5, 2, 3.5, -3.25]);
    expect(numbers(weightedMean([x, y], [0.75, 0.25]))).toEqual([0.875, 1.5, 2, 3.5, -3.25]);
    expect(numbers(weightedMean([x, y], [0, 1e-9]))).toEqual(numbers(y));
    const third = numbers(weightedMean([x, y], [1 / 3, 2 / 3]));
    expect(third[0]).toBeCloseTo(2 / 3, 7);
  });

  it("of one set is that set, bit for bit", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, min: Math.fround(1e-5), max: 1000 }), {
          minLength: 1,
          maxLength: 20,
        }),
        fc.integer({ min: 1, max: 1e6 }),
        (values, weight) => {
          const only: Params = new Map([["w", float32([values.length], values)]]);
          expect(numbers(weightedMean([only], [weight]))).toEqual(numbers(only));
          expect(numbers(weightedMean([only, only, only], [weight, 0.1, 17]))).toEqual(numbers(only));
        },
      ),
    );
  });

  it("does not depend on the order of the list", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.float({ noNaN: true, min: -1e6, max: 1e6 }),
            fc.double({ min: 0.01, max: 1e4, noNaN: true }),
          ),
          {
            minLength: 2,
            maxLength: 30,
          },
        ),
        (pairs) => {
          const mean = (list: typeof pairs): number[] =>
            numbers(
              weightedMean(
                list.map(([value]) => new Map([["w", float32([1], [value])]])),
                list.map(([, weight]) => weight),
              ),
            );
          const forward = mean(pairs);
          expect(mean([...pairs].reverse())).toEqual(forward);
          expect(mean([...pairs].sort(([a], [b]) => a - b))).toEqual(forward);
          const total = pairs.reduce((sum, [, weight]) => sum + weight, 0);
          const expected = pairs.reduce((sum, [value, weight]) => sum + value * weight, 0) / total;
          const largest = Math.max(...pairs.map(([value]) => Math.abs(value)));
          // Weights are rounded to 2^-29 of the largest, the result to float32, at its low end to multiples of 2^-149.
          expect(Math.abs((forward[0] ?? Number.NaN) - expected)).toBeLessThanOrEqual(
            largest * (2 ** -23 + pairs.length * 2 ** -28) + 2 ** -149,
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  it("averages float64 tensors in float64", () => {
    const doubles = [0.1, 0.4].map(
      (value): Params => new Map([["w", tensor("float64", [1], Float64Array.of(value))]]),
    );
    expect(numbers(weightedMean(doubles, [1, 3]))).toEqual([(0.1 + 3 * 0.4) / 4]);
  });

  it("refuses no sets, bad weights and values that are not finite", () => {
    expect(() => weightedMean([], [])).toThrow(/no parameters/);
    expect(() => weightedMean([x], [1, 2])).toThrow(/1 sets of parameters, but 2 weights/);
    expect(() => weightedMean([x], [0])).toThrow(/all weights are 0/);
    expect(() => weightedMean([x, y], [1, Number.NaN])).toThrow(/weight 1 is NaN/);
    expect(() => weightedMean([make([1, Number.NaN, 0], [1])], [1])).toThrow(/b holds NaN/);
  });
});
