import { porterStem } from "./porter.ts";

/** The words that share a meaning with a word. */
export type Synonyms = (word: string) => Iterable<string>;

export interface MeteorOptions {
  /** Adds a third stage of synonyms after equal words and equal stems. Default: none. */
  readonly synonyms?: Synonyms;
}

/** Weights of precision and of fragmentation. */
const [alpha, beta, gamma] = [0.9, 3, 0.5];

/**
 * METEOR of tokens from 0 to 1 as nltk computes it: lower case, equal words, then equal Porter stems, then synonyms where
 * they are given; the best reference counts. It is not the METEOR 1.5 of the Java program.
 *
 * Lavie and Agarwal, WMT 2007. https://aclanthology.org/W07-0734
 */
export function meteor(
  prediction: readonly string[],
  references: readonly (readonly string[])[],
  options: MeteorOptions = {},
): number {
  return Math.max(...references.map((reference) => singleMeteor(prediction, reference, options)));
}

/** Pairs of aligned positions in prediction and reference, ascending in the prediction. */
export function meteorAlignment(
  prediction: readonly string[],
  reference: readonly string[],
  { synonyms }: MeteorOptions = {},
): [number, number][] {
  const found = prediction.map((word) => word.toLowerCase());
  const free = reference.map((word): string | undefined => word.toLowerCase());
  const aligned = new Map<number, number>();
  // Each stage walks the prediction from its end and takes the last free position of the reference.
  const stage = (
    form: (word: string) => string,
    forms: (word: string) => Iterable<string> = (word) => [form(word)],
  ): void => {
    const positions = new Map<string, number[]>();
    for (const [j, word] of free.entries()) {
      if (word === undefined) continue;
      const key = form(word);
      positions.set(key, [...(positions.get(key) ?? []), j]);
    }
    for (let i = found.length - 1; i >= 0; i--) {
      if (aligned.has(i)) continue;
      let best: number[] | undefined;
      for (const key of forms(found[i] ?? "")) {
        const own = positions.get(key);
        if ((own?.at(-1) ?? -1) > (best?.at(-1) ?? -1)) best = own;
      }
      const j = best?.pop();
      if (j === undefined) continue;
      aligned.set(i, j);
      free[j] = undefined;
    }
  };
  stage((word) => word);
  stage(porterStem);
  // Synonyms are looked up for stems and compared with stems, as nltk does: few words whose stem is no word find any.
  if (synonyms !== undefined) stage(porterStem, (word) => [porterStem(word), ...synonyms(porterStem(word))]);
  return [...aligned].sort(([a], [b]) => a - b);
}

function singleMeteor(
  prediction: readonly string[],
  reference: readonly string[],
  options: MeteorOptions,
): number {
  const pairs = meteorAlignment(prediction, reference, options);
  const matches = pairs.length;
  if (matches === 0) return 0;
  const [precision, recall] = [matches / prediction.length, matches / reference.length];
  const mean = (precision * recall) / (alpha * precision + (1 - alpha) * recall);
  const breaks = pairs.slice(1).filter(([i, j], k) => {
    const [before, beforeJ] = pairs[k] ?? [0, 0];
    return i !== before + 1 || j !== beforeJ + 1;
  });
  return (1 - gamma * ((1 + breaks.length) / matches) ** beta) * mean;
}
