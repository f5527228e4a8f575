import { type Example, labelSpans } from "../data/examples.ts";
import type { DataRecord } from "../data/record.ts";
import type { Template } from "../data/templates.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import type { ChoiceCase } from "../metrics/multiple-choice.ts";
import { tokenLosses } from "./losses.ts";
import type { EvaluatedModel, Found, PassOptions } from "./model.ts";

/** A question with its choices as examples whose labels are the tokens of the choice. */
export interface ChoiceQuestion {
  readonly choices: readonly string[];
  readonly examples: readonly Example[];
  /** The right choice, from 0. */
  readonly gold: number;
}

export interface ChoiceOptions {
  readonly tokenizer: Tokenizer;
  readonly template: Template;
  /** The field that the template trains: each choice is put there. */
  readonly answer: string;
  /** The field with the list of choices. Default: `choices`. */
  readonly choices?: string;
  /** The field with the right choice: its number from 0, or its text. Default: `gold`. */
  readonly gold?: string;
}

/** Questions of records. */
export function questionsOf(
  records: readonly DataRecord[],
  { tokenizer, template, answer, choices: choicesField = "choices", gold: goldField = "gold" }: ChoiceOptions,
): ChoiceQuestion[] {
  return records.map((record, index) => {
    const wrong = (what: string): TributaryError =>
      new TributaryError(
        "malformed-data",
        `choices: record ${index} has ${what}; correct the data or data.fields`,
      );
    const listed = record[choicesField];
    if (!Array.isArray(listed) || listed.length < 2)
      throw wrong(`no list of at least two choices in "${choicesField}"`);
    const choices = listed.map(String);
    const gold = goldOf(record[goldField], choices);
    if (gold === undefined)
      throw wrong(
        `in "${goldField}" neither a number from 0 to ${choices.length - 1} nor the text of a choice`,
      );
    const examples = choices.map((choice): Example => {
      const rendered = template.render({ ...record, [answer]: choice });
      if (typeof rendered === "string") throw wrong(rendered);
      return labelSpans({ ...rendered, endsWithEos: false }, tokenizer);
    });
    return { choices, examples, gold };
  });
}

/** The log-likelihood of every choice of each question. */
export async function* choiceLikelihoods(
  model: EvaluatedModel,
  questions: readonly ChoiceQuestion[],
  options: PassOptions,
): AsyncGenerator<Found<ChoiceCase>> {
  const flat = questions.flatMap(({ examples }, question) =>
    examples.map((example, choice) => ({ example, question, choice })),
  );
  const found = questions.map(({ choices }) => new Array<number>(choices.length).fill(Number.NaN));
  const left = questions.map(({ choices }) => choices.length);
  const { onProgress, ...rest } = options;
  let done = 0;
  const losses = tokenLosses(
    model,
    flat.map(({ example }) => example),
    rest,
  );
  for await (const { index, value } of losses) {
    const { question = 0, choice = 0 } = flat[index] ?? {};
    const own = found[question] ?? [];
    own[choice] = -value.sum;
    const open = (left[question] ?? 1) - 1;
    left[question] = open;
    if (open > 0) continue;
    done++;
    onProgress?.(done);
    const { choices = [], gold = 0 } = questions[question] ?? {};
    yield { index: question, value: { choices, logLikelihoods: own, gold } };
  }
}

function goldOf(value: unknown, choices: readonly string[]): number | undefined {
  const named = choices.indexOf(String(value));
  if (named >= 0 && typeof value === "string") return named;
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  const known =
    typeof number === "number" && Number.isInteger(number) && number >= 0 && number < choices.length;
  return known ? number : undefined;
}
