import { type BleuCounts, type TextCase, tokenCounts } from "./bleu.ts";
import { words } from "./white-space.ts";

/** Stand for 0 in counts of matches, and in counts that divide. */
const [tiny, small] = [1e-15, 1e-9];

/** Counts of one tokenized text, split at white space. */
export function cocoBleuCounts({ prediction, references }: TextCase, order = 4): BleuCounts {
  return tokenCounts(words(prediction), references.map(words), order);
}

/**
 * BLEU-1 up to BLEU-`order` from 0 to 1 of the sum of some counts, as the COCO caption evaluation (pycocoevalcap 1.2)
 * computes them. Texts are tokenized and lower-cased beforehand.
 *
 * Chen et al. 2015. https://arxiv.org/abs/1504.00325
 */
export function cocoBleuOf(counts: readonly BleuCounts[], order = 4): number[] {
  const total = (value: (one: BleuCounts) => number): number =>
    counts.reduce((sum, one) => sum + value(one), 0);
  const ratio =
    (total(({ predictionLength }) => predictionLength) + tiny) /
    (total(({ referenceLength }) => referenceLength) + small);
  const penalty = ratio < 1 ? Math.exp(1 - 1 / ratio) : 1;
  let product = 1;
  return Array.from({ length: order }, (_, i) => {
    product *= (total((one) => one.matches[i] ?? 0) + tiny) / (total((one) => one.totals[i] ?? 0) + small);
    return penalty * product ** (1 / (i + 1));
  });
}
