import { describe, expect, it } from "vitest";
import { porterStem } from "../../src/metrics/porter.ts";

describe("Porter's stemmer", () => {
  it("stems the examples of the paper", () => {
    const examples: Readonly<Record<string, string>> = {
      caresses: "caress",
      ponies: "poni",
      cats: "cat",
      feed: "feed",
      agreed: "agre",
      plastered: "plaster",
      bled: "bled",
      motoring: "motor",
      sing: "sing",
      conflated: "conflat",
      troubled: "troubl",
      sized: "size",
      hopping: "hop",
      falling: "fall",
      hissing: "hiss",
      failing: "fail",
      filing: "file",
      happy: "happi",
      relational: "relat",
      conditional: "condit",
      digitizer: "digit",
      vietnamization: "vietnam",
      hopefulness: "hope",
      sensibiliti: "sensibl",
      triplicate: "triplic",
      electrical: "electr",
      goodness: "good",
      revival: "reviv",
      airliner: "airlin",
      adjustment: "adjust",
      adoption: "adopt",
      bowdlerize: "bowdler",
      probate: "probat",
      cease: "ceas",
      controlling: "control",
      roll: "roll",
    };
    for (const [word, stem] of Object.entries(examples))
      expect([word, porterStem(word)]).toEqual([word, stem]);
  });

  it("has nltk's irregular forms and its rules for y, -ies and short words", () => {
    const forms = ["skies", "dying", "news", "enjoy", "say", "by", "ties", "died", "spied", "logically"];
    expect(forms.map(porterStem)).toEqual([
      "sky",
      "die",
      "news",
      "enjoy",
      "say",
      "by",
      "tie",
      "die",
      "spi",
      "logic",
    ]);
  });
});
