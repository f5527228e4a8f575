import { referenceCount, sacrebleuVersion, type TextCase } from "./bleu.ts";
import { nGramCounts, overlap, sizeOf } from "./n-grams.ts";
import { withoutWhiteSpace, words } from "./white-space.ts";

export interface ChrfOptions {
  /** Highest order of word n-grams beside characters: 2 is chrF++. Default: 0. */
  readonly wordOrder?: number;
}

/** Highest order of character n-grams, and the weight of recall. */
const [characterOrder, beta] = [6, 2];

/** N-grams of the prediction, of the reference, and those that match, of one order. */
type OrderCounts = readonly [predicted: number, wanted: number, matched: number];

/** Counts of one text against its best reference, one entry an order; those of a corpus are their sums. */
export type ChrfCounts = readonly OrderCounts[];

/** Counts of one text against the reference with the highest score, the first of equals. */
export function chrfCounts(
  { prediction, references }: TextCase,
  { wordOrder = 0 }: ChrfOptions = {},
): ChrfCounts {
  const found = ordersOf(prediction, wordOrder);
  const all = references.map((reference) =>
    ordersOf(reference, wordOrder).map((wanted, i): OrderCounts => {
      const own = found[i] ?? new Map<string, number>();
      return [wanted.size === 0 ? 0 : sizeOf(own), sizeOf(wanted), overlap(own, wanted)];
    }),
  );
  return all.reduce((best, other) => (chrfOf([other]) > chrfOf([best]) ? other : best));
}

/**
 * chrF2, or chrF2++ with word n-grams, from 0 to 100, of the sum of some counts, as sacrebleu computes it: precision and
 * recall are means over the orders that both sides have.
 *
 * Popović, WMT 2015 and 2017. https://aclanthology.org/W15-3049
 */
export function chrfOf(counts: readonly ChrfCounts[]): number {
  const orders = counts[0]?.length ?? 0;
  let [precision, recall, used] = [0, 0, 0];
  for (let i = 0; i < orders; i++) {
    const [predicted, wanted, matched] = [0, 1, 2].map((part) =>
      counts.reduce((sum, one) => sum + (one[i]?.[part] ?? 0), 0),
    ) as [number, number, number];
    if (predicted === 0 || wanted === 0) continue;
    precision += matched / predicted;
    recall += matched / wanted;
    used++;
  }
  if (precision + recall === 0) return 0;
  const [p, r] = [precision / used, recall / used];
  return (100 * (1 + beta ** 2) * p * r) / (beta ** 2 * p + r);
}

/** Sacrebleu's signature of the variant. */
export function chrfSignature(cases: readonly TextCase[], { wordOrder = 0 }: ChrfOptions = {}): string {
  return `nrefs:${referenceCount(cases)}|case:mixed|eff:yes|nc:${characterOrder}|nw:${wordOrder}|space:no|version:${sacrebleuVersion}`;
}

function ordersOf(text: string, wordOrder: number): ReadonlyMap<string, number>[] {
  const characters = [...withoutWhiteSpace(text)];
  const tokens = wordOrder > 0 ? chrfWords(text) : [];
  return [
    ...Array.from({ length: characterOrder }, (_, i) => nGramCounts(characters, i + 1)),
    ...Array.from({ length: wordOrder }, (_, i) => nGramCounts(tokens, i + 1)),
  ];
}

/** Words with one sign of ASCII punctuation at their end, else at their start, set apart. */
function chrfWords(text: string): string[] {
  const sign = /[!-/:-@[-`{-~]/;
  return words(text).flatMap((word) => {
    const characters = [...word];
    if (characters.length === 1) return [word];
    if (sign.test(characters.at(-1) ?? ""))
      return [characters.slice(0, -1).join(""), characters.at(-1) ?? ""];
    if (sign.test(characters[0] ?? "")) return [characters[0] ?? "", characters.slice(1).join("")];
    return [word];
  });
}
