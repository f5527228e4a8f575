import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pearson } from "../../src/metrics/correlation.ts";
import { matthewsCorrelation } from "../../src/metrics/matthews.ts";
import { shared } from "../shared.ts";

interface Golden {
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly labels: readonly number[];
        readonly predictions: readonly number[];
        readonly expect: { readonly mcc: number };
      }
    >
  >;
}

describe("Matthews' correlation", () => {
  it("is Pearson's correlation where there are two classes", () => {
    const [predicted, actual] = [
      [1, 1, 0, 1, 0, 0, 1],
      [1, 0, 0, 1, 0, 1, 1],
    ];
    expect(matthewsCorrelation(predicted, actual)).toBeCloseTo(pearson(predicted, actual) ?? Number.NaN, 12);
  });

  it("is 1 for right answers only, and 0 where one side knows one class", () => {
    expect(matthewsCorrelation([2, 0, 1, 2], [2, 0, 1, 2])).toBeCloseTo(1, 12);
    expect(matthewsCorrelation([1, 1, 1], [1, 0, 1])).toBe(0);
  });

  it.skipIf(shared === undefined)("agrees with scikit-learn (skips without shared/)", () => {
    const path = join(shared ?? "", "goldens/metrics/classification.json");
    const golden: Golden = JSON.parse(readFileSync(path, "utf8"));
    for (const { labels, predictions, expect: expected } of Object.values(golden.cases))
      expect(matthewsCorrelation(predictions, labels)).toBeCloseTo(expected.mcc, 12);
  });
});
