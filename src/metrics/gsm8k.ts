/** How the number is found in an answer: after `####`, or as the last number of the text. */
export type Gsm8kExtraction = "strict" | "flexible";

/** What ends an answer. */
export const gsm8kStops: readonly string[] = ["Question:", "</s>", "<|im_end|>"];

const noAnswer = "[invalid]";

/** An answer up to the first stop. */
export function gsm8kAnswer(response: string): string {
  const ends = gsm8kStops.map((stop) => response.indexOf(stop)).filter((at) => at >= 0);
  return response.slice(0, Math.min(response.length, ...ends));
}

/**
 * The number that a cut answer states, or `[invalid]`. Rules of lm-evaluation-harness 0.4, task gsm8k version 3: strict
 * takes the first number after `#### `, flexible the last that looks like one.
 *
 * Cobbe et al. 2021. https://arxiv.org/abs/2110.14168
 */
export function gsm8kExtract(answer: string, extraction: Gsm8kExtraction): string {
  if (extraction === "strict") return /#### (-?[0-9.,]+)/.exec(answer)?.[1] ?? noAnswer;
  const last = [...answer.matchAll(/(-?[$0-9.,]{2,})|(-?[0-9]+)/g)].at(-1);
  return last?.[1] ?? last?.[2] ?? noAnswer;
}

/** A number as both sides are compared: without commas, dollars, what stands before `#### ` and one final dot. */
export function gsm8kNormalized(text: string): string {
  return text
    .replaceAll(",", "")
    .replaceAll("$", "")
    .replace(/^[\s\S]*#### /, "")
    .replace(/\.(?=\n?$)/, "")
    .toLowerCase();
}

/** Whether a response gives the number of the reference answer. */
export function gsm8kMatch(response: string, reference: string, extraction: Gsm8kExtraction): boolean {
  return gsm8kNormalized(gsm8kExtract(gsm8kAnswer(response), extraction)) === gsm8kNormalized(reference);
}
