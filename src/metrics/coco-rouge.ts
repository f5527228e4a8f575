import type { TextCase } from "./bleu.ts";
import { lcsLength } from "./lcs.ts";

/** Weight of recall. */
const beta = 1.2;

/**
 * ROUGE-L from 0 to 1 as the COCO caption evaluation computes it: tokens between single blanks, and the best precision and
 * the best recall of all references, which may come from different ones. Texts are tokenized and lower-cased beforehand.
 *
 * Chen et al. 2015, section 3.2. https://arxiv.org/abs/1504.00325
 */
export function cocoRougeL({ prediction, references }: TextCase): number {
  const found = prediction.split(" ");
  let [precision, recall] = [0, 0];
  for (const reference of references) {
    const wanted = reference.split(" ");
    const common = lcsLength(wanted, found);
    precision = Math.max(precision, common / found.length);
    recall = Math.max(recall, common / wanted.length);
  }
  if (precision === 0 || recall === 0) return 0;
  return ((1 + beta ** 2) * precision * recall) / (recall + beta ** 2 * precision);
}
