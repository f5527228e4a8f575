import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { addresses, clean, pretrainingPassages, silos } from "../../scripts/presidents/corpus.ts";
import { tokenizerJson, trainBpe } from "../../scripts/presidents/tokenizer.ts";

const base = new URL("../../examples/presidents/base/", import.meta.url);

describe("the corpus of addresses", () => {
  it("has 233 addresses, by year", () => {
    const all = addresses();
    expect(all).toHaveLength(233);
    expect(all.map(({ year }) => year)).toEqual(all.map(({ year }) => year).sort((a, b) => a - b));
    expect(all.filter(({ year }) => year === 1953).map(({ president }) => president)).toEqual([
      "Harry S Truman",
      "Dwight D Eisenhower",
    ]);
  });

  it("gives each of fourteen presidents training and held-out text from 1950 on", () => {
    const found = silos();
    expect(found.size).toBe(14);
    for (const passages of found.values()) {
      expect(passages.every(({ year }) => year >= 1950)).toBe(true);
      const tested = passages.filter(({ split }) => split === "test").length;
      expect(tested).toBeGreaterThanOrEqual(3);
      expect(tested / passages.length).toBeGreaterThan(0.1);
    }
    expect(pretrainingPassages().every(({ year }) => year < 1950)).toBe(true);
  });

  it("is running English: no stage directions, labels, entities, table rules or doubled spaces", () => {
    const unwanted = /[[(]applause|\[|&\w+;|_{2}|\.{4}|\s{2}|^\s|\s$|[\u2018\u2019\u201c\u201d\u2014]/i;
    const found = addresses().flatMap(({ text, year }) => {
      const match = unwanted.exec(text);
      return match === null ? [] : [`${year}: ${text.slice(match.index, match.index + 40)}`];
    });
    expect(found).toEqual([]);
  });

  it("removes what was not said and keeps what was", () => {
    expect(clean("The President. Mr. Speaker:  We won. [Laughter] The President. My fellow Americans.")).toBe(
      "Mr. Speaker: We won. My fellow Americans.",
    );
    expect(clean("It’s “good” &mdash; truly.[1] (Applause.) The President. Agreed.")).toBe(
      'It\'s "good"--truly. Agreed.',
    );
    expect(clean("End. GOVERNMENT PRINTING OFFICE. I recommend it.")).toBe("End. I recommend it.");
    expect(clean("A fact. Year - Population - Ratio 1790 - 3,929,827 - .......... Another fact.")).toBe(
      "A fact. Another fact.",
    );
  });
});

describe("the tokenizer's training", () => {
  it("merges the most frequent pair first, of equals the pair of smallest ids", () => {
    // Counts in "low low low lower lowest": lo 5, ow 5; then low 5; then " low" 4; ties go to the smaller first id.
    const { tokens, merges } = trainBpe(["low low low lower lowest"], 258 + 4);
    expect(merges).toEqual([
      ["l", "o"],
      ["lo", "w"],
      ["Ġ", "low"],
      ["Ġlow", "e"],
    ]);
    expect(tokens.slice(-4)).toEqual(["lo", "low", "Ġlow", "Ġlowe"]);
    expect(tokens.slice(0, 3)).toEqual(["<|endoftext|>", "<|pad|>", "!"]);
  });

  it("refuses a size that the text cannot fill", () => {
    expect(() => trainBpe(["a"], 300)).toThrow("the text has pairs for 258 tokens, 300 wanted");
  });

  it("gives the committed tokenizer from the text before 1950", () => {
    const vocabulary = trainBpe(
      pretrainingPassages().map(({ text }) => text),
      4096,
    );
    expect(`${JSON.stringify(tokenizerJson(vocabulary))}\n`).toBe(
      readFileSync(new URL("tokenizer.json", base), "utf8"),
    );
  });
});
