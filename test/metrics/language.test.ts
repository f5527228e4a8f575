import { describe, expect, it } from "vitest";
import { gsm8kExtract, gsm8kMatch, gsm8kNormalized } from "../../src/metrics/gsm8k.ts";
import { choiceAccuracy, chosen } from "../../src/metrics/multiple-choice.ts";
import { perplexity, shiftedCrossEntropy, textLoss, textPerplexity } from "../../src/metrics/perplexity.ts";

describe("perplexity", () => {
  it("is the number of tokens for a model that knows nothing, whatever is masked", () => {
    const logits = Array.from({ length: 4 }, () => [0, 0, 0, 0, 0]);
    const losses = [shiftedCrossEntropy(logits, [1, -100, 2, 4]), shiftedCrossEntropy(logits, [0, 3, 3, 3])];
    expect(losses.map(({ tokens }) => tokens)).toEqual([2, 3]);
    expect(perplexity(losses)).toBeCloseTo(5, 12);
  });

  it("predicts each label from the position before it", () => {
    const { sum, tokens } = shiftedCrossEntropy(
      [
        [0, Math.log(3)],
        [50, 0],
      ],
      [0, 1],
    );
    expect(tokens).toBe(1);
    expect(sum).toBeCloseTo(Math.log(4 / 3), 12);
  });

  it("counts words between any white space, and UTF-8 bytes", () => {
    const found = textPerplexity([textLoss("café  au\nlait", 3 * Math.LN2), textLoss("👍", Math.LN2)]);
    expect(found.wordPerplexity).toBeCloseTo(2, 12);
    expect(found.bitsPerByte).toBeCloseTo(4 / (14 + 4), 12);
    expect(found.bytePerplexity).toBeCloseTo(2 ** (4 / 18), 12);
  });
});

describe("GSM8K's answers", () => {
  it("are the number after #### or the last number", () => {
    expect(gsm8kExtract("3 and 4 make 7.\n#### 7", "strict")).toBe("7");
    expect(gsm8kExtract("3 and 4 make 7", "strict")).toBe("[invalid]");
    expect(gsm8kExtract("so 1,234.50 dollars, or $1,235", "flexible")).toBe("$1,235");
    expect(gsm8kExtract("none", "flexible")).toBe("[invalid]");
  });

  it("are compared without commas, dollars and a final dot, as text", () => {
    expect(gsm8kNormalized("steps\n#### 1,234.")).toBe("1234");
    expect(gsm8kMatch("#### 1,234.", "#### 1234", "strict")).toBe(true);
    expect(gsm8kMatch("#### 7.0", "#### 7", "strict")).toBe(false);
  });

  it("end at the next question", () => {
    expect(gsm8kMatch("It is 5.\nQuestion: what is 6?", "#### 5", "flexible")).toBe(true);
  });
});

describe("multiple choice", () => {
  const cases = [
    // By itself the short choice is likelier, by character and by byte the long one.
    { choices: ["no", "certainly not"], logLikelihoods: [-3, -6], gold: 1 },
    // One code point of four bytes.
    { choices: ["👍", "abcd"], logLikelihoods: [-2, -7], gold: 0 },
  ];

  it("divides by code points or by bytes", () => {
    expect(cases.map((one) => chosen(one))).toEqual([0, 0]);
    expect(cases.map((one) => chosen(one, "characters"))).toEqual([1, 1]);
    expect(cases.map((one) => chosen(one, "bytes"))).toEqual([1, 0]);
    expect([choiceAccuracy(cases), choiceAccuracy(cases, "bytes")]).toEqual([0.5, 1]);
  });

  it("takes the first of equals", () => {
    expect(chosen({ choices: ["a", "b"], logLikelihoods: [-1, -1] })).toBe(0);
  });
});
