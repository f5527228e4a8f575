import { describe, expect, it } from "vitest";
import { bestRouge, rouge, rougeTokens } from "../../src/metrics/rouge.ts";

describe("ROUGE", () => {
  it("scores the sentences of the paper as the paper does", () => {
    // Lin 2004, section 3.1: S2 and S3 against S1 have ROUGE-L 3/4 and 2/4, and the same ROUGE-2.
    const reference = "police killed the gunman";
    const [s2, s3] = ["police kill the gunman", "the gunman kill police"];
    expect(rouge("rougeL", s2, reference).fmeasure).toBeCloseTo(0.75, 12);
    expect(rouge("rougeL", s3, reference).fmeasure).toBeCloseTo(0.5, 12);
    expect(rouge("rouge2", s2, reference)).toEqual(rouge("rouge2", s3, reference));
  });

  it("takes the union of subsequences of each reference line", () => {
    // Lin 2004, section 3.2: the union LCS of w1 w2 w3 w4 w5 is w1 w2 w3 w5.
    const found = rouge("rougeLsum", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5");
    expect(found.recall).toBeCloseTo(4 / 5, 12);
    expect(found.precision).toBeCloseTo(4 / 10, 12);
  });

  it("counts n-grams as often as both sides have them", () => {
    expect(rouge("rouge1", "testing", "testing one two")).toEqual({
      precision: 1,
      recall: 1 / 3,
      fmeasure: 0.5,
    });
    expect(rouge("rouge1", "the the the", "the cat").precision).toBeCloseTo(1 / 3, 12);
  });

  it("takes the best reference, and 0 where a side has no tokens", () => {
    expect(bestRouge("rouge1", "a cat", ["a dog", "the cat is a cat"]).recall).toBeCloseTo(2 / 5, 12);
    expect(rouge("rougeLsum", "", "a").fmeasure).toBe(0);
    expect(rouge("rougeL", "...", "a").fmeasure).toBe(0);
  });

  it("keeps ASCII letters and digits, and stems words of more than three letters", () => {
    expect(rougeTokens("Naïve café, 3.14 Tests")).toEqual(["na", "ve", "caf", "3", "14", "tests"]);
    expect(rougeTokens("was testing cats", { stem: true })).toEqual(["was", "test", "cat"]);
  });
});
