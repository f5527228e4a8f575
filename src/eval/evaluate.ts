import type { Example } from "../data/examples.ts";
import type { TextCase } from "../metrics/bleu.ts";
import { bootstrapInterval } from "../metrics/bootstrap.ts";
import type { LossCase, Metric, MetricCases, MetricNeeds, MetricOf } from "../metrics/metric.ts";
import { type AnswerOptions, answers } from "./answers.ts";
import { type ChoiceQuestion, choiceLikelihoods } from "./choices.ts";
import { classified, regressed } from "./classes.ts";
import { tokenLosses } from "./losses.ts";
import type { EvaluatedModel, Found, PassOptions } from "./model.ts";
import type { Prompt } from "./prompts.ts";

/** What is put before a model, by the kind of metric that it serves; a kind that is absent is not measured. */
export interface EvaluationData {
  readonly texts?: readonly Prompt[];
  readonly classes?: readonly Example[];
  readonly numbers?: readonly Example[];
  readonly choices?: readonly ChoiceQuestion[];
  readonly losses?: readonly Example[];
}

/** What was found of one example, as a line of a file. */
export type ExampleRow = {
  readonly kind: MetricNeeds;
  /** Its place among the examples of this kind. */
  readonly index: number;
  /** Metrics of this example alone, of those that have such a value. */
  readonly scores: Readonly<Record<string, number>>;
} & Readonly<Record<string, unknown>>;

/** How far an evaluation is. */
export interface EvaluationProgress {
  readonly kind: MetricNeeds;
  readonly done: number;
  readonly total: number;
}

export interface EvaluateOptions extends Omit<AnswerOptions, "onProgress"> {
  /** Samples of the bootstrap; 0 for no intervals. Default: 1000. */
  readonly resamples?: number;
  /** Seed of the bootstrap. Default: 0. */
  readonly seed?: number;
  readonly onProgress?: (progress: EvaluationProgress) => void;
  readonly onExample?: (row: ExampleRow) => void;
}

/** The value of a metric with its confidence interval of 95 %. */
export interface MeasuredMetric {
  readonly name: string;
  /** Absent where the metric is not defined on these examples. */
  readonly value?: number;
  readonly low?: number;
  readonly high?: number;
  readonly examples: number;
  readonly signature: string;
}

/** Measures a model by some metrics; of each kind of data that they need, it is put through once. */
export async function evaluateModel(
  model: EvaluatedModel,
  { losses = [], classes = [], numbers = [], choices = [], texts = [] }: EvaluationData,
  metrics: readonly Metric[],
  options: EvaluateOptions,
): Promise<MeasuredMetric[]> {
  const { onProgress = () => {}, onExample = () => {}, maxTokens, stop = [] } = options;
  const found = new Map<string, MeasuredMetric>();

  async function measure<Needs extends MetricNeeds, Item>(
    needs: Needs,
    items: readonly Item[],
    pass: (rest: PassOptions) => AsyncIterable<Found<MetricCases[Needs]>>,
    describe: (one: MetricCases[Needs], item: Item) => Readonly<Record<string, unknown>>,
  ): Promise<void> {
    const own = metrics.filter((metric): metric is Metric & MetricOf<Needs> => metric.needs === needs);
    if (own.length === 0) return;
    const cases: MetricCases[Needs][] = [];
    const { batchSize, signal } = options;
    const progress = (done: number): void => onProgress({ kind: needs, done, total: items.length });
    progress(0);
    for await (const { index, value } of pass({ batchSize, signal, onProgress: progress })) {
      cases[index] = value;
      const item = items[index];
      if (item === undefined) continue;
      const scores = own.flatMap(({ name, single }) => (single === undefined ? [] : [[name, single(value)]]));
      onExample({ kind: needs, index, ...describe(value, item), scores: Object.fromEntries(scores) });
    }
    for (const metric of own) found.set(metric.name, measured(metric, cases, options));
  }

  await measure("losses", losses, (rest) => tokenLosses(model, losses, rest), lossRow);
  await measure(
    "classes",
    classes,
    (rest) => classified(model, classes, rest),
    (one) => ({ ...one }),
  );
  await measure(
    "numbers",
    numbers,
    (rest) => regressed(model, numbers, rest),
    (one) => ({ ...one }),
  );
  await measure(
    "choices",
    choices,
    (rest) => choiceLikelihoods(model, choices, rest),
    (one) => ({ ...one }),
  );
  await measure("texts", texts, (rest) => answers(model, texts, { maxTokens, stop, ...rest }), answerRow);
  return metrics.flatMap(({ name }) => found.get(name) ?? []);
}

const lossRow = ({ sum, tokens }: LossCase): Readonly<Record<string, unknown>> => ({
  loss: sum / tokens,
  tokens,
});

const answerRow = (
  { prediction, references }: TextCase,
  { text }: Prompt,
): Readonly<Record<string, unknown>> => ({ prompt: text, prediction, references });

function measured<Needs extends MetricNeeds>(
  metric: MetricOf<Needs>,
  cases: readonly MetricCases[Needs][],
  { resamples = 1000, seed = 0 }: EvaluateOptions,
): MeasuredMetric {
  const { value, over } = metric.measure(cases);
  const interval =
    resamples === 0 || value === undefined
      ? undefined
      : bootstrapInterval(cases.length, over, { resamples, seed, key: metric.name });
  return {
    name: metric.name,
    ...(value === undefined || !Number.isFinite(value) ? {} : { value }),
    ...interval,
    examples: cases.length,
    signature: metric.signature(cases),
  };
}
