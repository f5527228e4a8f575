import { nGramOrders, shortened, sizeOf } from "./n-grams.ts";
import type { TokenCase } from "./nltk-bleu.ts";

/** Information that a match of one order gives, the n-grams of the prediction, and the reference's length. */
interface NistOrder {
  readonly information: number;
  readonly total: number;
  readonly referenceLength: number;
  readonly predictionLength: number;
}

/** What one text adds to each order of a corpus. */
export type NistCounts = readonly NistOrder[];

/**
 * What each text adds to NIST: information weights come from the references of all the texts, and each order takes the
 * reference with the highest precision, as in nltk's `corpus_nist`.
 */
export function nistCounts(cases: readonly TokenCase[], order = 5): NistCounts[] {
  const weights = informationWeights(cases, order);
  return cases.map(({ prediction, references }) => {
    const found = nGramOrders(prediction, order);
    const wanted = references.map((reference) => nGramOrders(reference, order));
    return found.map((counts, i): NistOrder => {
      const total = sizeOf(counts);
      const scored = wanted.map((orders, j) => {
        let information = 0;
        for (const [key, count] of counts)
          information += (weights.get(key) ?? 0) * Math.min(count, orders[i]?.get(key) ?? 0);
        return {
          information,
          total,
          referenceLength: references[j]?.length ?? 0,
          predictionLength: prediction.length,
        };
      });
      return scored.reduce((best, other) =>
        other.information > best.information ||
        (other.information === best.information && other.referenceLength > best.referenceLength)
          ? other
          : best,
      );
    });
  });
}

/**
 * NIST of the sum of some counts; an order of which no text has an n-gram adds nothing.
 *
 * Doddington, HLT 2002, eq. 2 and 3. https://dl.acm.org/doi/10.5555/1289189.1289273
 */
export function nistOf(counts: readonly NistCounts[]): number {
  const orders = counts[0]?.length ?? 0;
  const total = (value: (one: NistOrder) => number, i: number): number =>
    counts.reduce((sum, one) => sum + (one[i] === undefined ? 0 : value(one[i])), 0);
  let [score, predicted, wanted] = [0, 0, 0];
  for (let i = 0; i < orders; i++) {
    const nGrams = total((one) => one.total, i);
    score += nGrams === 0 ? 0 : total((one) => one.information, i) / nGrams;
    predicted += total((one) => one.predictionLength, i);
    wanted += total((one) => one.referenceLength, i);
  }
  return score * lengthPenalty(predicted / wanted);
}

/** NIST of a corpus of tokens. */
export function corpusNist(cases: readonly TokenCase[], order = 5): number {
  return nistOf(nistCounts(cases, order));
}

/** exp(β log² ratio) with β such that a prediction of two thirds of the length has half of the score. */
function lengthPenalty(ratio: number): number {
  if (!(ratio > 0 && ratio < 1)) return Math.max(0, Math.min(1, ratio || 0));
  return Math.exp((Math.log(0.5) / Math.log(1.5) ** 2) * Math.log(ratio) ** 2);
}

/** log2 of how often an n-gram occurs without its last token per time that it occurs with it. */
function informationWeights(cases: readonly TokenCase[], order: number): ReadonlyMap<string, number> {
  const references = cases.flatMap((one) => one.references);
  const counts = new Map<string, number>();
  for (const reference of references)
    for (const own of nGramOrders(reference, order))
      for (const [key, count] of own) counts.set(key, (counts.get(key) ?? 0) + count);
  const tokens = references.reduce((sum, reference) => sum + reference.length, 0);
  return new Map(
    [...counts].map(([key, count]) => {
      const start = shortened(key);
      return [key, Math.log2((start === undefined ? tokens : (counts.get(start) ?? tokens)) / count)];
    }),
  );
}
