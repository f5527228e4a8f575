import { describe, expect, it } from "vitest";
import { bleuSignature, corpusBleu, sentenceBleu } from "../../src/metrics/bleu.ts";
import { chrfCounts, chrfOf } from "../../src/metrics/chrf.ts";
import { meteor } from "../../src/metrics/meteor.ts";
import { corpusNist } from "../../src/metrics/nist.ts";
import { nltkBleu } from "../../src/metrics/nltk-bleu.ts";
import { tokenize13a } from "../../src/metrics/tokenize-13a.ts";

// The example of sacrebleu's README.
const dog = [
  { prediction: "The dog bit the man.", references: ["The dog bit the man.", "The dog had bit the man."] },
  { prediction: "It wasn't surprising.", references: ["It was not unexpected.", "No one was surprised."] },
  {
    prediction: "The man had just bitten him.",
    references: ["The man bit him first.", "The man had bitten the dog."],
  },
];

const split = (text: string): string[] => text.split(" ");

// The sentences of nltk's documentation, from Papineni et al.
const party = {
  prediction: split(
    "It is a guide to action which ensures that the military always obeys the commands of the party",
  ),
  references: [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
  ].map(split),
};
const troops = {
  ...party,
  prediction: split("It is to insure the troops forever hearing the activity guidebook that party direct"),
};

describe("sacrebleu's BLEU", () => {
  it("has the score, the precisions and the lengths of its README", () => {
    const { score, precisions, brevityPenalty, predictionLength, referenceLength } = corpusBleu(dog);
    expect(score).toBeCloseTo(48.530827009929865, 10);
    expect(precisions.map((precision) => precision.toFixed(1))).toEqual(["82.4", "50.0", "45.5", "37.5"]);
    expect(brevityPenalty).toBeCloseTo(0.943, 3);
    expect([predictionLength, referenceLength]).toEqual([17, 18]);
    expect(bleuSignature(dog)).toBe("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0");
  });

  it("smooths zero precisions by halves, by a floor, by adding, or not at all", () => {
    // Two of three tokens match, no bigram of two does.
    const one = [{ prediction: "a b c", references: ["a x c"] }];
    const score = (smoothing?: Parameters<typeof corpusBleu>[1]): number =>
      corpusBleu(one, { order: 2, ...smoothing }).score;
    expect(score()).toBeCloseTo(100 * Math.sqrt((2 / 3) * (1 / 4)), 10);
    expect(score({ smoothing: { kind: "floor", value: 0.1 } })).toBeCloseTo(
      100 * Math.sqrt((2 / 3) * 0.05),
      10,
    );
    expect(score({ smoothing: { kind: "add-k", value: 1 } })).toBeCloseTo(
      100 * Math.sqrt((2 / 3) * (1 / 3)),
      10,
    );
    expect(score({ smoothing: { kind: "none" } })).toBe(0);
  });

  it("leaves orders without n-grams out of a sentence's score", () => {
    expect(sentenceBleu({ prediction: "a b", references: ["a b"] }).score).toBeCloseTo(100, 10);
  });

  it("splits punctuation as mteval-v13a does", () => {
    expect(tokenize13a("He said &quot;3.14, 2,000 and 5-6&quot; - a-b... <skipped>ok.")).toEqual([
      "He",
      "said",
      '"',
      "3.14",
      ",",
      "2,000",
      "and",
      "5",
      "-",
      "6",
      '"',
      "-",
      "a-b",
      ".",
      ".",
      ".",
      "ok",
      ".",
    ]);
  });
});

describe("nltk's BLEU", () => {
  it("has the values of its documentation", () => {
    expect(nltkBleu([party])).toBeCloseTo(0.5045666840058485, 12);
    const first = [{ ...party, references: party.references.slice(0, 1) }];
    expect(nltkBleu(first)).toBeCloseTo(0.4118, 4);
    expect(nltkBleu(first, { smoothing: "method2" })).toBeCloseTo(0.4452, 3);
    expect(nltkBleu([troops], { smoothing: "method1" })).toBeCloseTo(0.037, 4);
    const book = {
      prediction: split("he read the book because he was interested in world history"),
      references: [split("he was interested in world history because he read the book")],
    };
    expect(nltkBleu([party, book])).toBeCloseTo(0.592, 3);
  });
});

describe("NIST", () => {
  it("has the values of nltk's documentation", () => {
    expect(corpusNist([party])).toBeCloseTo(3.3709935957649324, 12);
    expect(corpusNist([troops])).toBeCloseTo(1.4619035460750132, 12);
  });
});

describe("METEOR", () => {
  it("has the value of nltk's documentation, in which no synonym takes part", () => {
    expect(meteor(party.prediction, party.references)).toBeCloseTo(0.6944, 4);
  });

  it("is 1 less half of the cube of a chunk's share for equal texts, and 0 without a match", () => {
    expect(meteor(["a", "b", "c"], [["a", "b", "c"]])).toBeCloseTo(1 - 0.5 / 27, 12);
    expect(meteor(["a"], [["b"]])).toBe(0);
  });

  it("matches stems after words, and synonyms of stems where they are given", () => {
    expect(meteor(["cats"], [["cat"]])).toBeCloseTo(0.5, 12);
    const synonyms = (word: string): string[] => (word === "error" ? ["fault"] : []);
    expect(meteor(["errors"], [["faults"]])).toBe(0);
    expect(meteor(["errors"], [["faults"]], { synonyms })).toBeCloseTo(0.5, 12);
  });
});

describe("chrF", () => {
  it("has the score of sacrebleu's README", () => {
    expect(chrfOf(dog.map((one) => chrfCounts(one)))).toBeCloseTo(59.73, 2);
  });

  it("is 100 for equal texts whatever their white space, and counts code points", () => {
    expect(chrfOf([chrfCounts({ prediction: "ab\tc👍d", references: ["abc 👍d"] })])).toBeCloseTo(100, 10);
    expect(chrfOf([chrfCounts({ prediction: "", references: ["abc"] })])).toBe(0);
  });
});
