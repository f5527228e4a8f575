import type { Example } from "../data/examples.ts";
import type { DataRecord } from "../data/record.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { questionsOf } from "../eval/choices.ts";
import type { EvaluationData } from "../eval/evaluate.ts";
import { encodedPrompts, promptGroups } from "../eval/prompts.ts";
import type { Metric, MetricNeeds } from "../metrics/metric.ts";
import { encoder, spread, templateOf } from "./data.ts";
import type { Job } from "./job.ts";

/** Most new tokens of an answer where a job does not say. */
const answerTokens = 128;

/** Options of answers that a job names. */
export function answerOptions({ maxTokens = answerTokens, stop = [] }: Job["evaluation"]): {
  readonly maxTokens: number;
  readonly stop: readonly string[];
} {
  return { maxTokens, stop };
}

/** The field that a template trains, by the template's name and the part that it is. */
const answerParts: Readonly<Record<string, keyof Job["data"]["fields"]>> = {
  alpaca: "output",
  "prompt-completion": "completion",
  "question-answer": "answer",
};

export interface EvaluationDataOptions {
  readonly tokenizer: Tokenizer;
  /** Positions of the model. */
  readonly maxPositions: number;
  readonly metrics: readonly Metric[];
}

/** Held-out records as the metrics need them, and what was left out. */
export interface JobEvaluationData {
  readonly data: EvaluationData;
  readonly notes: readonly string[];
}

/**
 * Makes of held-out records what some metrics need, at most `evaluation.maxExamples` of each kind. Records with the same
 * prompt are one answer with several references.
 */
export function evaluationData(
  job: Pick<Job, "data" | "task" | "evaluation">,
  records: readonly DataRecord[],
  { tokenizer, maxPositions, metrics }: EvaluationDataOptions,
): JobEvaluationData {
  const maxLength = Math.min(job.data.maxLength, maxPositions);
  const limited = { ...job, data: { ...job.data, maxLength } };
  const needs = new Set(metrics.map((metric) => metric.needs));
  const notes: string[] = [];
  const { maxExamples } = job.evaluation;
  const chosen = job.data.pack ? records : spread(records, maxExamples);
  const examples = (): readonly Example[] => {
    const made = encoder(limited, tokenizer, records[0])(chosen);
    if (made.truncated > 0) notes.push(`${made.truncated} examples are cut to ${maxLength} tokens`);
    return spread(made.examples, maxExamples);
  };
  const data: { -readonly [K in keyof EvaluationData]: EvaluationData[K] } = {};
  if (needs.has("losses")) data.losses = examples();
  if (needs.has("classes")) data.classes = examples();
  if (needs.has("numbers")) data.numbers = examples();
  if (needs.has("choices")) {
    const template = templateOf(job.data, tokenizer, records[0]);
    const part = answerParts[template.name];
    if (part === undefined)
      throw withoutPrompts("choices", metrics, `the template ${template.name} has no field for a choice`);
    const { fields } = job.data;
    data.choices = questionsOf(chosen, {
      tokenizer,
      template,
      answer: fields[part] ?? part,
      ...(fields.choices === undefined ? {} : { choices: fields.choices }),
      ...(fields.gold === undefined ? {} : { gold: fields.gold }),
    });
  }
  if (needs.has("texts")) {
    const template = templateOf(job.data, tokenizer, records[0]);
    const { maxTokens } = answerOptions(job.evaluation);
    const room = Math.max(1, Math.min(maxLength, maxPositions - maxTokens));
    const { groups, dropped } = promptGroups(records, template);
    const { prompts, truncated } = encodedPrompts(spread(groups, maxExamples), {
      tokenizer,
      maxLength: room,
    });
    if (prompts.length === 0)
      throw withoutPrompts(
        "texts",
        metrics,
        `the template ${template.name} makes no prompt of these records`,
      );
    if (dropped > 0) notes.push(`${dropped} records have no prompt or no answer and are left out`);
    if (truncated > 0) notes.push(`${truncated} prompts are cut to their last ${room} tokens`);
    data.texts = prompts;
  }
  return { data, notes };
}

function withoutPrompts(needs: MetricNeeds, metrics: readonly Metric[], why: string): TributaryError {
  const names = metrics.filter((metric) => metric.needs === needs).map(({ name }) => name);
  return new TributaryError(
    "no-examples",
    `metrics: ${names.join(", ")} cannot be measured: ${why}; take another data.template, or other metrics`,
  );
}
