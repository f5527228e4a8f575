import { type BleuCounts, tokenCounts } from "./bleu.ts";

/** A predicted text and its references as tokens. */
export interface TokenCase {
  readonly prediction: readonly string[];
  readonly references: readonly (readonly string[])[];
}

/**
 * What takes the place of a precision of zero: nothing, 0.1 of a match, one match more of any order above 1, the halves of
 * NIST, or these scaled by the length.
 */
export type NltkSmoothing = "method0" | "method1" | "method2" | "method3" | "method4";

export interface NltkBleuOptions {
  /** Highest order of n-grams, all with the same weight. Default: 4. */
  readonly order?: number;
  /** Default: method0, none. */
  readonly smoothing?: NltkSmoothing;
}

/** Smallest normal number: its logarithm stands for that of 0. */
const tiny = 2 ** -1022;

/**
 * BLEU from 0 to 1 as nltk's `corpus_bleu` computes it; of one text, its `sentence_bleu`. A text shorter than an order
 * counts as one n-gram of it, other than in sacrebleu.
 *
 * Smoothing: Chen and Cherry, WMT 2014. https://aclanthology.org/W14-3346
 */
export function nltkBleu(
  cases: readonly TokenCase[],
  { order = 4, smoothing = "method0" }: NltkBleuOptions = {},
): number {
  const counts = cases.map(({ prediction, references }) => tokenCounts(prediction, references, order));
  const total = (value: (one: BleuCounts) => number): number =>
    counts.reduce((sum, one) => sum + value(one), 0);
  const length = total(({ predictionLength }) => predictionLength);
  const wanted = total(({ referenceLength }) => referenceLength);
  const matches = Array.from({ length: order }, (_, i) => total((one) => one.matches[i] ?? 0));
  const totals = Array.from({ length: order }, (_, i) => total((one) => Math.max(1, one.totals[i] ?? 0)));
  if (matches[0] === 0) return 0;
  const precisions = smoothed(matches, totals, length, smoothing);
  const penalty = length > wanted ? 1 : Math.exp(1 - wanted / length);
  const logs = precisions.map((precision) => (precision > 0 ? Math.log(precision) / order : 0));
  return penalty * Math.exp(logs.reduce((sum, log) => sum + log, 0));
}

function smoothed(
  matches: readonly number[],
  totals: readonly number[],
  length: number,
  smoothing: NltkSmoothing,
): number[] {
  let misses = 0;
  return matches.map((match, i) => {
    const total = totals[i] ?? 1;
    if (smoothing === "method2" && i > 0) return (match + 1) / (total + 1);
    if (match > 0) return match / total;
    if (smoothing === "method0") return tiny;
    if (smoothing === "method1") return 0.1 / total;
    if (smoothing === "method2" || (smoothing === "method4" && length <= 1)) return 0;
    misses++;
    const scale = smoothing === "method4" ? 5 / Math.log(length) : 1;
    return 1 / (2 ** misses * scale * total);
  });
}
