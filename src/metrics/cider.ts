import type { TextCase } from "./bleu.ts";
import { type NGramCounts, nGramOrders, sizeOf } from "./n-grams.ts";
import { words } from "./white-space.ts";

export interface CiderOptions {
  /**
   * Whether counts are clipped to the reference's and a gaussian of the difference in length is multiplied in: CIDEr-D,
   * which COCO's and E2E's scripts print as CIDEr. Default: true.
   */
  readonly clipped?: boolean;
}

/** Highest order of n-grams, and the deviation of the gaussian over lengths. */
const [order, sigma] = [4, 6];

/**
 * CIDEr of each text, times 10 as is usual, as the COCO caption evaluation computes it: the inverse document frequencies come
 * from the references of all the texts, so the value of one text depends on the others. Texts are tokenized and lower-cased
 * beforehand.
 *
 * Vedantam et al., CVPR 2015, eq. 1 to 3 and 5. https://arxiv.org/abs/1411.5726
 */
export function cider(cases: readonly TextCase[], { clipped = true }: CiderOptions = {}): number[] {
  const counted = cases.map(({ prediction, references }) => ({
    prediction: nGramOrders(words(prediction), order),
    references: references.map((reference) => nGramOrders(words(reference), order)),
  }));
  const frequency = documentFrequency(counted.map(({ references }) => references));
  const documents = Math.log(cases.length);
  const weigh = (counts: NGramCounts): Weighed => {
    const weights = new Map<string, number>();
    let squares = 0;
    for (const [key, count] of counts) {
      const weight = count * (documents - Math.log(Math.max(1, frequency.get(key) ?? 0)));
      weights.set(key, weight);
      squares += weight ** 2;
    }
    return { weights, norm: Math.sqrt(squares) };
  };
  return counted.map(({ prediction, references }) => {
    const found = prediction.map(weigh);
    let sum = 0;
    for (const reference of references) {
      // Lengths are counted in bigrams.
      const difference = sizeOf(prediction[1] ?? new Map()) - sizeOf(reference[1] ?? new Map());
      const penalty = clipped ? Math.exp(-(difference ** 2) / (2 * sigma ** 2)) : 1;
      for (const [i, counts] of reference.entries())
        sum += penalty * cosine(found[i] ?? { weights: new Map(), norm: 0 }, weigh(counts), clipped);
    }
    return (10 * sum) / (order * references.length);
  });
}

interface Weighed {
  readonly weights: ReadonlyMap<string, number>;
  readonly norm: number;
}

function cosine(a: Weighed, b: Weighed, clipped: boolean): number {
  if (a.norm === 0 || b.norm === 0) return 0;
  let product = 0;
  for (const [key, weight] of a.weights) {
    const other = b.weights.get(key) ?? 0;
    product += (clipped ? Math.min(weight, other) : weight) * other;
  }
  return product / (a.norm * b.norm);
}

/** In the references of how many texts an n-gram occurs. */
function documentFrequency(
  texts: readonly (readonly (readonly NGramCounts[])[])[],
): ReadonlyMap<string, number> {
  const frequency = new Map<string, number>();
  for (const references of texts) {
    const seen = new Set(references.flatMap((orders) => orders.flatMap((counts) => [...counts.keys()])));
    for (const key of seen) frequency.set(key, (frequency.get(key) ?? 0) + 1);
  }
  return frequency;
}
