import { describe, expect, it } from "vitest";
import { cider } from "../../src/metrics/cider.ts";
import { cocoBleuCounts, cocoBleuOf } from "../../src/metrics/coco-bleu.ts";
import { cocoRougeL } from "../../src/metrics/coco-rouge.ts";

describe("CIDEr", () => {
  const cases = [
    { prediction: "a red bus on the road", references: ["a red bus on the road"] },
    { prediction: "two dogs play", references: ["three cats sleep", "some cats sleep here"] },
  ];

  it("is 10 for a text that equals its reference and 0 for one that shares nothing", () => {
    expect(cider(cases)[0]).toBeCloseTo(10, 10);
    expect(cider(cases)[1]).toBe(0);
    expect(cider(cases, { clipped: false })[0]).toBeCloseTo(10, 10);
  });

  it("lowers CIDEr-D of a repeated text by its counts and its length, and plain CIDEr not", () => {
    const [repeated] = cider([
      { ...cases[0], prediction: "bus bus bus", references: ["bus"] },
      ...cases.slice(1),
    ]);
    const [plain] = cider([{ prediction: "bus bus bus", references: ["bus"] }, ...cases.slice(1)], {
      clipped: false,
    });
    // Of the four orders only unigrams match: cosine 1; clipped a third, and the gaussian of a difference of 2 bigrams.
    expect(plain).toBeCloseTo(10 / 4, 10);
    expect(repeated).toBeCloseTo((10 / 4 / 3) * Math.exp(-4 / 72), 10);
  });
});

describe("ROUGE-L of COCO", () => {
  it("takes the best precision and the best recall of different references", () => {
    // Precision 2/2 with the long reference, recall 1/1 with the short one.
    expect(cocoRougeL({ prediction: "a b", references: ["a x b y z", "b"] })).toBeCloseTo(1, 12);
    expect(cocoRougeL({ prediction: "a b", references: ["a x y z"] })).toBeCloseTo(
      (2.44 * 0.5 * 0.25) / (0.25 + 1.44 * 0.5),
      12,
    );
  });
});

describe("BLEU of COCO", () => {
  it("has BLEU-1 to BLEU-4 of a corpus, and nearly 0 without a match", () => {
    const counts = [cocoBleuCounts({ prediction: "a b c d", references: ["a b c x"] })];
    const [b1, b2, b3, b4] = cocoBleuOf(counts);
    expect(b1).toBeCloseTo(3 / 4, 8);
    expect(b2).toBeCloseTo(Math.sqrt((3 / 4) * (2 / 3)), 8);
    expect(b3).toBeCloseTo(Math.cbrt((3 / 4) * (2 / 3) * (1 / 2)), 8);
    expect(b4).toBeLessThan(1e-3);
  });
});
