import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { meanSquaredError, pearson, spearman } from "../../src/metrics/correlation.ts";
import { shared } from "../shared.ts";

const number = fc.double({ min: -100, max: 100, noNaN: true });
const pairs = fc.array(fc.tuple(number, number), { minLength: 3, maxLength: 30 });

describe("Pearson's correlation", () => {
  it("is the cosine of the centred lists, worked out by hand", () => {
    // Centred: [-1, 0, 1] and [-3, 1, 2]; inner product 5, squared norms 2 and 14.
    expect(pearson([1, 2, 3], [2, 6, 7])).toBeCloseTo(5 / Math.sqrt(28), 14);
  });

  it("is undefined where one side is constant or a single number", () => {
    expect(pearson([1, 2, 3], [4, 4, 4])).toBeUndefined();
    expect(pearson([0.1, 0.1, 0.1], [1, 2, 3])).toBeUndefined();
    expect(pearson([1], [2])).toBeUndefined();
    expect(pearson([], [])).toBeUndefined();
  });

  it("does not change under a positive scale and an offset", () => {
    fc.assert(
      fc.property(pairs, (values) => {
        const [xs, ys] = [values.map(([x]) => Math.round(x)), values.map(([, y]) => Math.round(y))];
        const plain = pearson(xs, ys);
        const moved = pearson(
          xs.map((x) => 3 * x + 7),
          ys,
        );
        if (plain === undefined) expect(moved).toBeUndefined();
        else expect(moved).toBeCloseTo(plain, 10);
      }),
    );
  });

  it("refuses lists of unequal length", () => {
    expect(() => pearson([1, 2], [1])).toThrow("pearson: 2 and 1 numbers, expected lists of equal length");
  });
});

describe("Spearman's correlation", () => {
  it("sees the order alone, equal values sharing their mean rank", () => {
    expect(spearman([1, 2, 3, 4], [1, 10, 100, 1000])).toBeCloseTo(1, 14);
    // Ranks [1.5, 1.5, 3] and [1, 2, 3]: centred [-1/2, -1/2, 1] and [-1, 0, 1].
    expect(spearman([5, 5, 9], [1, 2, 3])).toBeCloseTo(1.5 / Math.sqrt(1.5 * 2), 14);
  });

  it("without equal values is 1 - 6 sum d^2 / (n (n^2 - 1))", () => {
    const [xs, ys] = [
      [3, 1, 4, 15, 9],
      [2, 7, 18, 28, 1],
    ];
    const rank = (of: readonly number[]): number[] => of.map((x) => of.filter((y) => y <= x).length);
    const [rx, ry] = [rank(xs), rank(ys)];
    const squares = rx.reduce((sum, r, i) => sum + (r - (ry[i] ?? 0)) ** 2, 0);
    expect(spearman(xs, ys)).toBeCloseTo(1 - (6 * squares) / (5 * 24), 14);
  });
});

describe("the mean squared error", () => {
  it("is the mean of the squared differences", () => {
    expect(meanSquaredError([1, 2, 4], [1, 4, 1])).toBeCloseTo(13 / 3, 14);
  });
});

interface Golden {
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly labels: readonly number[];
        readonly predictions: readonly number[];
        readonly expect: { readonly pearson: number | null; readonly spearman: number | null };
      }
    >
  >;
}

describe.skipIf(!shared)("the reference values of scipy", () => {
  it("come out to 1e-9", () => {
    const golden: Golden = JSON.parse(readFileSync(`${shared}/goldens/metrics/regression.json`, "utf8"));
    for (const [name, { labels, predictions, expect: wanted }] of Object.entries(golden.cases)) {
      const found = { pearson: pearson(labels, predictions), spearman: spearman(labels, predictions) };
      for (const measure of ["pearson", "spearman"] as const) {
        const value = wanted[measure];
        if (value === null) expect(found[measure], `${name} ${measure}`).toBeUndefined();
        else
          expect(Math.abs((found[measure] ?? Number.NaN) - value), `${name} ${measure}`).toBeLessThan(1e-9);
      }
    }
  });
});
