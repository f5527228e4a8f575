import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type MetricCases, type MetricNeeds, type MetricOf, metricNeeds } from "../../src/metrics/metric.ts";
import { bestOf, decimalsOf, metricNamed, metricNames, metrics } from "../../src/metrics/table.ts";

const cases: { readonly [Needs in MetricNeeds]: readonly MetricCases[Needs][] } = {
  texts: [
    { prediction: "the cat sat on the mat #### 4", references: ["the cat is on the mat #### 4"] },
    { prediction: "a dog barks loudly at night", references: ["a dog barks at night", "dogs bark"] },
    { prediction: "", references: ["something else"] },
  ],
  classes: [
    { predicted: 1, actual: 1, confidence: 0.9, loss: 0.1 },
    { predicted: 0, actual: 1, confidence: 0.6, loss: 0.9 },
    { predicted: 0, actual: 0, confidence: 0.8, loss: 0.2 },
  ],
  numbers: [
    { predicted: 1, actual: 2 },
    { predicted: 3, actual: 3 },
    { predicted: 2, actual: 5 },
  ],
  choices: [
    { choices: ["a", "bb"], logLikelihoods: [-1, -1.5], gold: 1 },
    { choices: ["a", "b"], logLikelihoods: [-1, -2], gold: 0 },
  ],
  losses: [
    { sum: 4, tokens: 2, correct: 1, text: "two words" },
    { sum: 3, tokens: 3, correct: 2, text: "three more words" },
  ],
};

describe("the table of metrics", () => {
  it("has a name, a title and a signature for each", () => {
    expect(new Set(metrics.map(({ name }) => name)).size).toBe(metrics.length);
    for (const metric of metrics) expect(metric.title.length).toBeGreaterThan(5);
    expect(metricNames(["numbers"])).toEqual(["pearson", "spearman", "mse"]);
    expect(metricNamed("no such metric")).toBeUndefined();
  });

  it.each(metrics.map((metric) => [metric.name, metric] as const))(
    "measures %s again on a sample",
    (_, metric) => {
      const check = <Needs extends MetricNeeds>(
        { measure, signature, single }: MetricOf<Needs>,
        own: readonly MetricCases[Needs][],
      ): void => {
        const { value, over } = measure(own);
        expect(Number.isFinite(value)).toBe(true);
        expect(over(own.map((_, i) => i))).toBeCloseTo(value ?? Number.NaN, 12);
        expect(Number.isFinite(over([1, 1, 0]) ?? Number.NaN)).toBe(true);
        expect(signature(own)).not.toBe("");
        for (const one of single === undefined ? [] : own) expect(Number.isFinite(single?.(one))).toBe(true);
      };
      switch (metric.needs) {
        case "texts":
          return check(metric, cases.texts);
        case "classes":
          return check(metric, cases.classes);
        case "numbers":
          return check(metric, cases.numbers);
        case "choices":
          return check(metric, cases.choices);
        case "losses":
          return check(metric, cases.losses);
      }
    },
  );

  it("is described in the documents", () => {
    const text = readFileSync(new URL("../../docs/evaluation.md", import.meta.url), "utf8");
    // A row that names the first and the last of some has those between them.
    const between = /^(?:rouge(?:2|L)Stem|bleuNltk[23]|bleuCoco[23])$/;
    const absent = metricNames(metricNeeds).filter((name) => !text.includes(`\`${name}\``));
    expect(absent.filter((name) => !between.test(name))).toEqual([]);
  });

  it("tells where a value stands by its direction", () => {
    const lower = metrics.filter(({ better }) => better === "lower").map(({ name }) => name);
    expect(lower).toEqual([
      "ece",
      "crossEntropy",
      "mse",
      "loss",
      "perplexity",
      "wordPerplexity",
      "bytePerplexity",
      "bitsPerByte",
    ]);
  });

  it.each([
    ["loss", 1],
    ["perplexity", 1],
    ["mse", 1],
    ["ece", 1],
    ["accuracy", 3],
    ["rougeL", 3],
    ["meteorWordNet", 3],
  ])("has the best %s of 2, 1 and 3 as %d, and of nothing none", (name, best) => {
    expect(bestOf(name, [2, 1, 3])).toBe(best);
    expect(bestOf(name, [])).toBeUndefined();
  });

  it("writes what goes to 100 and perplexities with two digits, shares with four", () => {
    expect(["bleu", "chrf++", "perplexity", "nist", "cider"].map(decimalsOf)).toEqual([2, 2, 2, 3, 3]);
    expect(["rougeL", "acc", "f1", "loss", "bleuNltk4", "meteorWordNet"].map(decimalsOf)).toEqual([
      4, 4, 4, 4, 4, 4,
    ]);
  });
});
