import { largest, nGramOrders, overlap, sizeOf } from "./n-grams.ts";
import { tokenize13a } from "./tokenize-13a.ts";
import { endTrimmed } from "./white-space.ts";

/** A predicted text and the texts that it is measured against. */
export interface TextCase {
  readonly prediction: string;
  readonly references: readonly string[];
}

/** What takes the place of a precision of zero. */
export type BleuSmoothing =
  /** Halves with each order without a match: 1/2, 1/4, ... of an n-gram. */
  | { readonly kind: "exp" }
  /** Counts this many matches; sacrebleu's default is 0.1. */
  | { readonly kind: "floor"; readonly value: number }
  /** Adds this to matches and n-grams above unigrams; sacrebleu's default is 1. */
  | { readonly kind: "add-k"; readonly value: number }
  | { readonly kind: "none" };

export interface BleuOptions {
  /** Highest order of n-grams. Default: 4. */
  readonly order?: number;
  /** Default: false. */
  readonly lowercase?: boolean;
  /** Default: exp. */
  readonly smoothing?: BleuSmoothing;
  /** Leaves out orders of which the prediction has no n-gram; meant for single sentences. Default: false. */
  readonly effectiveOrder?: boolean;
}

/** The counts of one text, which add up to those of a corpus. */
export interface BleuCounts {
  readonly predictionLength: number;
  /** Of the reference whose length is closest, the shorter of equals. */
  readonly referenceLength: number;
  /** Matches of each order. */
  readonly matches: readonly number[];
  /** N-grams of the prediction of each order. */
  readonly totals: readonly number[];
}

/** BLEU with what it is made of. */
export interface BleuScore extends BleuCounts {
  /** 0 to 100. */
  readonly score: number;
  /** Of each order, 0 to 100. */
  readonly precisions: readonly number[];
  readonly brevityPenalty: number;
}

/** The release of sacrebleu whose behaviour this is. */
export const sacrebleuVersion = "2.6.0";

/**
 * BLEU of a corpus as sacrebleu computes it, with 13a tokens.
 *
 * Papineni et al., ACL 2002; Post, WMT 2018. https://aclanthology.org/W18-6319
 */
export function corpusBleu(cases: readonly TextCase[], options: BleuOptions = {}): BleuScore {
  return bleuOf(
    cases.map((one) => bleuCounts(one, options)),
    options,
  );
}

/** BLEU of one text; orders of which it has no n-gram are left out. */
export function sentenceBleu(one: TextCase, options: BleuOptions = {}): BleuScore {
  return bleuOf([bleuCounts(one, options)], { effectiveOrder: true, ...options });
}

/** The counts of one text. */
export function bleuCounts(
  { prediction, references }: TextCase,
  { order = 4, lowercase = false }: BleuOptions = {},
): BleuCounts {
  const tokens = (text: string): string[] => tokenize13a(endTrimmed(lowercase ? text.toLowerCase() : text));
  return tokenCounts(tokens(prediction), references.map(tokens), order);
}

/** The counts of tokens against those of the references. */
export function tokenCounts(
  prediction: readonly string[],
  references: readonly (readonly string[])[],
  order: number,
): BleuCounts {
  const found = nGramOrders(prediction, order);
  const wanted = references.map((reference) => nGramOrders(reference, order));
  return {
    predictionLength: prediction.length,
    referenceLength: closestLength(
      prediction.length,
      references.map(({ length }) => length),
    ),
    matches: found.map((counts, i) => overlap(counts, largest(wanted.flatMap((orders) => orders[i] ?? [])))),
    totals: found.map(sizeOf),
  };
}

/** The length that is closest to a given one, the shorter of two. */
export function closestLength(length: number, others: readonly number[]): number {
  return others.reduce((best, other) => {
    const [far, near] = [Math.abs(other - length), Math.abs(best - length)];
    return far < near || (far === near && other < best) ? other : best;
  }, others[0] ?? 0);
}

/** BLEU of the sum of some counts. */
export function bleuOf(
  counts: readonly BleuCounts[],
  { order = 4, smoothing = { kind: "exp" }, effectiveOrder = false }: BleuOptions = {},
): BleuScore {
  const { predictionLength, referenceLength, matches, totals } = sumOf(counts, order);
  const brevityPenalty =
    predictionLength >= referenceLength
      ? 1
      : predictionLength === 0
        ? 0
        : Math.exp(1 - referenceLength / predictionLength);
  const precisions = new Array<number>(order).fill(0);
  const whole = { predictionLength, referenceLength, matches, totals, precisions, brevityPenalty };
  if (matches.every((match) => match === 0)) return { ...whole, score: 0 };
  let share = 1;
  let orders = order;
  for (let i = 0; i < order; i++) {
    const added = smoothing.kind === "add-k" && i > 0 ? smoothing.value : 0;
    const [match, total] = [(matches[i] ?? 0) + added, (totals[i] ?? 0) + added];
    if (total === 0) break;
    if (effectiveOrder) orders = i + 1;
    if (match > 0) precisions[i] = (100 * match) / total;
    else if (smoothing.kind === "exp") {
      share /= 2;
      precisions[i] = (100 * share) / total;
    } else if (smoothing.kind === "floor") precisions[i] = (100 * smoothing.value) / total;
  }
  const logs = precisions.slice(0, orders).map((precision) => Math.log(precision));
  return { ...whole, score: brevityPenalty * Math.exp(logs.reduce((sum, log) => sum + log, 0) / orders) };
}

/** Sacrebleu's signature: everything that another must set equally to get the same number. */
export function bleuSignature(cases: readonly TextCase[], options: BleuOptions = {}): string {
  const { lowercase = false, smoothing = { kind: "exp" }, effectiveOrder = false } = options;
  const value = "value" in smoothing ? `[${smoothing.value.toFixed(2)}]` : "";
  return [
    `nrefs:${referenceCount(cases)}`,
    `case:${lowercase ? "lc" : "mixed"}`,
    `eff:${effectiveOrder ? "yes" : "no"}`,
    "tok:13a",
    `smooth:${smoothing.kind}${value}`,
    `version:${sacrebleuVersion}`,
  ].join("|");
}

/** How many references each text has, or `var`. */
export function referenceCount(cases: readonly TextCase[]): string {
  const counts = new Set(cases.map(({ references }) => references.length));
  return counts.size === 1 ? [...counts].join("") : "var";
}

function sumOf(counts: readonly BleuCounts[], order: number): BleuCounts {
  const sum = {
    predictionLength: 0,
    referenceLength: 0,
    matches: new Array<number>(order).fill(0),
    totals: new Array<number>(order).fill(0),
  };
  for (const { predictionLength, referenceLength, matches, totals } of counts) {
    sum.predictionLength += predictionLength;
    sum.referenceLength += referenceLength;
    for (let i = 0; i < order; i++) {
      sum.matches[i]! += matches[i] ?? 0;
      sum.totals[i]! += totals[i] ?? 0;
    }
  }
  return sum;
}
