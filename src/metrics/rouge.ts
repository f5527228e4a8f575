import { lcsLength, lcsTable } from "./lcs.ts";
import { nGramCounts, overlap, sizeOf } from "./n-grams.ts";
import { porterStem } from "./porter.ts";

/** Precision, recall and their harmonic mean. */
export interface RougeScore {
  readonly precision: number;
  readonly recall: number;
  readonly fmeasure: number;
}

/** Unigrams, bigrams, the longest common subsequence, and that of lines taken together. */
export type RougeKind = "rouge1" | "rouge2" | "rougeL" | "rougeLsum";

/** All kinds. */
export const rougeKinds: readonly RougeKind[] = ["rouge1", "rouge2", "rougeL", "rougeLsum"];

export interface RougeOptions {
  /** Whether tokens of more than three letters are stemmed. Default: false. */
  readonly stem?: boolean;
}

/**
 * ROUGE of a prediction and one reference as rouge-score 0.1.2 computes it; a side without tokens gives 0.
 *
 * Lin, ACL 2004 workshop. https://aclanthology.org/W04-1013
 */
export function rouge(
  kind: RougeKind,
  prediction: string,
  reference: string,
  { stem = false }: RougeOptions = {},
): RougeScore {
  const tokens = (text: string): string[] => rougeTokens(text, { stem });
  switch (kind) {
    case "rouge1":
      return nGramScore(tokens(prediction), tokens(reference), 1);
    case "rouge2":
      return nGramScore(tokens(prediction), tokens(reference), 2);
    case "rougeL": {
      const [found, wanted] = [tokens(prediction), tokens(reference)];
      return score(lcsLength(wanted, found), found.length, wanted.length);
    }
    case "rougeLsum": {
      const lines = (text: string): string[][] => text.split("\n").filter(Boolean).map(tokens);
      return summaryScore(lines(prediction), lines(reference));
    }
  }
}

/** ROUGE against the reference with the highest F-measure, the first of equals. */
export function bestRouge(
  kind: RougeKind,
  prediction: string,
  references: readonly string[],
  options: RougeOptions = {},
): RougeScore {
  return references
    .map((reference) => rouge(kind, prediction, reference, options))
    .reduce((best, other) => (other.fmeasure > best.fmeasure ? other : best));
}

/** Tokens as rouge-score makes them: runs of `a-z0-9` of the lower-case text; other letters vanish. */
export function rougeTokens(text: string, { stem = false }: RougeOptions = {}): string[] {
  const tokens = text
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter(Boolean);
  return stem ? tokens.map((token) => (token.length > 3 ? porterStem(token) : token)) : tokens;
}

function nGramScore(prediction: readonly string[], reference: readonly string[], order: number): RougeScore {
  const [found, wanted] = [nGramCounts(prediction, order), nGramCounts(reference, order)];
  return score(overlap(wanted, found), sizeOf(found), sizeOf(wanted));
}

/** Each reference line counts the tokens of its union of subsequences, none more often than both sides have it. */
function summaryScore(
  prediction: readonly (readonly string[])[],
  reference: readonly (readonly string[])[],
): RougeScore {
  const left = nGramCounts(prediction.flat(), 1);
  const limits = new Map(
    [...nGramCounts(reference.flat(), 1)].map(([token, count]) => [
      token,
      Math.min(count, left.get(token) ?? 0),
    ]),
  );
  let hits = 0;
  for (const line of reference) {
    const union = new Set(prediction.flatMap((other) => commonPositions(line, other)));
    for (const at of union) {
      const token = line[at] ?? "";
      const limit = limits.get(token) ?? 0;
      if (limit === 0) continue;
      limits.set(token, limit - 1);
      hits++;
    }
  }
  return score(hits, prediction.flat().length, reference.flat().length);
}

/** Positions in `line` of one longest common subsequence with `other`: the one found from the end, going up on equals. */
function commonPositions(line: readonly string[], other: readonly string[]): number[] {
  const table = lcsTable(line, other);
  const width = other.length + 1;
  const found: number[] = [];
  let [i, j] = [line.length, other.length];
  while (i > 0 && j > 0) {
    if (line[i - 1] === other[j - 1]) {
      found.push(i - 1);
      i--;
      j--;
    } else if (table[i * width + j - 1]! > table[(i - 1) * width + j]!) j--;
    else i--;
  }
  return found;
}

function score(hits: number, predicted: number, wanted: number): RougeScore {
  const precision = hits / Math.max(1, predicted);
  const recall = hits / Math.max(1, wanted);
  const sum = precision + recall;
  return { precision, recall, fmeasure: sum > 0 ? (2 * precision * recall) / sum : 0 };
}
