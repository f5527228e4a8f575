import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ceilLog2, type ExactSumOptions, exactSum } from "../../src/tensor/exact-sum.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor } from "../../src/tensor/tensor.ts";

const shapes = new Map([
  ["a", [2, 3]],
  ["b", [5]],
]);

function updates(count: number, bound: number, seed: number): { params: Params; weight: number }[] {
  const random = stream({ seed, purpose: "updates" });
  return Array.from({ length: count }, () => {
    const params = new Map(
      [...shapes].map(([name, shape]) => {
        const values = Array.from(
          { length: name === "a" ? 6 : 5 },
          () => random.uniformRange(-bound, bound) * 10 ** -random.integer(8),
        );
        return [name, float32(shape, values)] as const;
      }),
    );
    return { params, weight: random.integer(5000) + random.integer(4) / 4 };
  });
}

const options = (limbs: 1 | 2): ExactSumOptions => ({ shapes, bound: 8, maxWeight: 1e6, limbs });

const bits = (params: Params): string => [...params].map(([name, { data }]) => `${name}:${data}`).join(";");

describe("exactSum", () => {
  it.each([1, 2] as const)(
    "with %i limbs gives the same bits in any order and for any split over workers",
    (limbs) => {
      fc.assert(
        fc.property(
          fc.integer({ min: 1, max: 40 }),
          fc.nat(1000),
          fc.integer({ min: 1, max: 8 }),
          (count, seed, workers) => {
            const list = updates(count, 8, seed);
            list.push({ ...list[0]!, weight: 1 });
            const inOrder = exactSum(options(limbs));
            for (const { params, weight } of list) inOrder.fold(params, weight);
            const random = stream({ seed, purpose: "order" });
            const parts = Array.from({ length: workers }, () => exactSum(options(limbs)));
            for (const { params, weight } of random.shuffle(list))
              parts[random.integer(workers)]?.fold(params, weight);
            const total = exactSum(options(limbs));
            for (const part of random.shuffle(parts)) total.merge(part.partial());
            expect(bits(total.mean())).toBe(bits(inOrder.mean()));
          },
        ),
        { numRuns: 60 },
      );
    },
  );

  it.each([1, 2] as const)(
    "with %i limbs is off by at most K/(2 W 2^s) before its rounding to float32",
    (limbs) => {
      const list = updates(50, 8, 9);
      const sum = exactSum(options(limbs));
      for (const { params, weight } of list) sum.fold(params, weight);
      const partial = sum.partial();
      for (const name of shapes.keys()) {
        const exponent = partial.exponents.get(name) ?? Number.NaN;
        expect(exponent).toBe(51 - 23); // log2(1e6 * 8) lies between 22 and 23
        const high = partial.high.get(name)?.data ?? [];
        const low = partial.low.get(name)?.data;
        for (let i = 0; i < high.length; i++) {
          // Exact rational arithmetic in units of 2^-200.
          let exact = 0n;
          for (const { params, weight } of list) {
            exact += BigInt(weight * 4) * dyadic(Number(params.get(name)?.data[i])) * 2n ** 48n;
          }
          const got =
            BigInt(high[i]!) * 2n ** BigInt(200 - exponent) +
            BigInt(low?.[i] ?? 0) * 2n ** BigInt(200 - exponent - 30);
          const error = got > exact ? got - exact : exact - got;
          const units = 2n ** BigInt(200 - exponent - (limbs === 2 ? 30 : 0));
          expect(2n * error <= BigInt(list.length) * units).toBe(true);
          expect(Math.abs(high[i]!)).toBeLessThanOrEqual(2 ** 53);
        }
      }
    },
  );

  it.each([1, 2] as const)(
    "with %i limbs a refused update leaves no trace, wherever its first bad value stands",
    (limbs) => {
      const many = new Map([
        ["a", [7]],
        ["b", [3, 3]],
      ]);
      const draw = stream({ seed: 3, purpose: "values" });
      const params = (): Map<string, Tensor<"float32">> =>
        new Map(
          [...many].map(([name, shape]) => {
            const size = shape.reduce((x, y) => x * y, 1);
            return [
              name,
              float32(
                shape,
                Array.from({ length: size }, () => draw.uniformRange(-1, 1)),
              ),
            ];
          }),
        );
      const sum = exactSum({ shapes: many, bound: 1, maxWeight: 100, limbs });
      sum.fold(params(), 3);
      const before = sum.partial();
      for (const [name, shape] of many) {
        for (let at = 0; at < shape.reduce((x, y) => x * y, 1); at++) {
          const bad = params();
          bad.get(name)!.data[at] = at % 2 === 0 ? Number.NaN : 1.5;
          expect(() => sum.fold(bad, 2.5)).toThrow(`${name}[${at}]`);
          expect(sum.partial()).toEqual(before);
        }
      }
    },
  );

  it("refuses values beyond the bound, NaN and too much weight, and then holds what it held", () => {
    const sum = exactSum({ shapes: new Map([["x", [2]]]), bound: 1, maxWeight: 10 });
    const fold = (values: number[], weight: number) => () =>
      sum.fold(new Map([["x", float32([2], values)]]), weight);
    fold([0.25, -1], 4)();
    const before = bits(sum.mean());
    expect(fold([0.5, 1.5], 1)).toThrow(/x\[1\] is 1.5, the bound is 1/);
    expect(fold([Number.NaN, 0], 1)).toThrow(/x\[0\] is NaN/);
    expect(fold([0, 0], 7)).toThrow(/total weight would be 11/);
    expect(fold([0, 0], 0.1)).toThrow(/multiple of 2\^-16/);
    expect(fold([0, 0], -1)).toThrow(/weight -1/);
    expect(() => sum.fold(new Map([["y", float32([2], [0, 0])]]), 1)).toThrow(/missing x; surplus y/);
    expect(bits(sum.mean())).toBe(before);
  });

  it("takes a second limb where one would be coarser than float32", () => {
    const make = (maxWeight: number) =>
      exactSum({ shapes: new Map([["x", [1]]]), bound: 4, maxWeight }).partial().low.size;
    expect(make(2 ** 27)).toBe(0);
    expect(make(2 ** 28)).toBe(1);
  });

  it("refuses partial sums of another grid and the mean of no weight", () => {
    const sum = exactSum({ shapes, bound: 1, maxWeight: 10 });
    expect(() => sum.merge(exactSum({ shapes, bound: 4, maxWeight: 10 }).partial())).toThrow(/another grid/);
    expect(() => sum.mean()).toThrow(/no weight/);
  });

  it("finds the exponent of powers of two exactly", () => {
    for (let n = -1074; n <= 1023; n++) expect(ceilLog2(2 ** n)).toBe(n);
    expect(ceilLog2(2 ** 10 + 2 ** -40)).toBe(11);
  });
});

/** A float32 as an integer in units of 2^-150. */
function dyadic(value: number): bigint {
  let scaled = value;
  let shift = 150;
  while (!Number.isInteger(scaled)) {
    scaled *= 2;
    shift--;
  }
  return BigInt(scaled) * 2n ** BigInt(shift);
}
