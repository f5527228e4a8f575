import { utf8Length } from "./perplexity.ts";

/** A question with the log-likelihood of each choice after it. */
export interface ChoiceCase {
  readonly choices: readonly string[];
  /** Sum over the tokens of each choice. */
  readonly logLikelihoods: readonly number[];
  /** The right choice, from 0. */
  readonly gold: number;
}

/** What a log-likelihood is divided by: nothing, the characters of the choice (code points), or its UTF-8 bytes. */
export type ChoiceNormalization = "none" | "characters" | "bytes";

/**
 * The choice that a model takes: the likeliest, the first of equals.
 *
 * acc, acc_norm and acc_bytes of lm-evaluation-harness 0.4; the blank before a choice is not counted.
 */
export function chosen(
  { choices, logLikelihoods }: Pick<ChoiceCase, "choices" | "logLikelihoods">,
  normalization: ChoiceNormalization = "none",
): number {
  const length = (choice: string): number => {
    if (normalization === "none") return 1;
    return normalization === "characters" ? [...choice].length : utf8Length(choice);
  };
  const scores = choices.map((choice, i) => (logLikelihoods[i] ?? Number.NaN) / length(choice));
  return scores.reduce((best, score, i) => (score > (scores[best] ?? Number.NaN) ? i : best), 0);
}

/** Share of the questions whose right choice is taken. */
export function choiceAccuracy(
  cases: readonly ChoiceCase[],
  normalization: ChoiceNormalization = "none",
): number {
  return cases.filter((one) => chosen(one, normalization) === one.gold).length / cases.length;
}
