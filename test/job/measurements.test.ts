import { describe, expect, it } from "vitest";
import { measurements } from "../../src/job/assemble.ts";

const examples = [1, 2, 4].map((label) => ({ inputIds: Int32Array.of(7), label }));

describe("the measurements of a regression", () => {
  it("are the correlations of predictions and targets, and the mean squared error", () => {
    const found = measurements({ loss: 7 / 3, predictions: [2, 1, 6] }, "regression", examples);
    // Centred: targets [-4/3, -1/3, 5/3], predictions [-1, -2, 3]; inner product 7, squared norms 14/3 and 14.
    expect(found.pearson).toBeCloseTo(7 / Math.sqrt((14 / 3) * 14), 12);
    // Ranks [1, 2, 3] and [2, 1, 3].
    expect(found.spearman).toBeCloseTo(0.5, 12);
    // Squared differences 1, 1 and 4.
    expect(found.mse).toBeCloseTo(2, 12);
  });

  it("leave out a correlation that is not defined", () => {
    const found = measurements({ loss: 2, predictions: [3, 3, 3] }, "regression", examples);
    expect(Object.keys(found)).toEqual(["loss", "mse"]);
  });
});

describe("the measurements of other tasks", () => {
  it("have a perplexity for language models and an accuracy where there are classes", () => {
    expect(measurements({ loss: Math.log(5) }, "causal-lm", []).perplexity).toBeCloseTo(5, 12);
    expect(measurements({ loss: 1, accuracy: 0.75 }, "sequence-classification", [])).toEqual({
      loss: 1,
      accuracy: 0.75,
    });
    const labelled = [1, 0, 1, 0].map((label) => ({ inputIds: Int32Array.of(7), label }));
    const found = measurements(
      { loss: 1, accuracy: 0.75, predictions: [1, 0, 1, 1] },
      "sequence-classification",
      labelled,
    );
    // (tp tn - fp fn) / sqrt(...) = (2 * 1 - 1 * 0) / sqrt(3 * 2 * 2 * 1)
    expect(found.mcc).toBeCloseTo(2 / Math.sqrt(12), 12);
  });
});
