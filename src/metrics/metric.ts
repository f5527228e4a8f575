import type { TextCase } from "./bleu.ts";
import type { ChoiceCase } from "./multiple-choice.ts";

/** A predicted class and the true one, from 0. */
export interface ClassCase {
  readonly predicted: number;
  readonly actual: number;
  /** Probability of the predicted class. */
  readonly confidence: number;
  /** Minus the logarithm of the probability of the true class. */
  readonly loss: number;
}

/** A predicted number and the true one. */
export interface NumberCase {
  readonly predicted: number;
  readonly actual: number;
}

/** The loss of the labelled tokens of one text. */
export interface LossCase {
  /** Sum in nats. */
  readonly sum: number;
  readonly tokens: number;
  /** How many of the tokens are the likeliest in their place. */
  readonly correct: number;
  /** What the tokens spell. */
  readonly text: string;
}

/** What a metric is measured on: answers beside references, classes, numbers, choices or losses. */
export interface MetricCases {
  readonly texts: TextCase;
  readonly classes: ClassCase;
  readonly numbers: NumberCase;
  readonly choices: ChoiceCase;
  readonly losses: LossCase;
}

/** The kind of data that a metric needs. */
export type MetricNeeds = keyof MetricCases;

/** All kinds. */
export const metricNeeds: readonly MetricNeeds[] = ["losses", "classes", "numbers", "choices", "texts"];

/** A metric of some examples, ready to be measured again on samples of them. */
export interface Measurement {
  /** Over all examples; undefined where the metric is not. */
  readonly value: number | undefined;
  /** Over the examples at these indices, which may repeat. */
  over(indices: readonly number[]): number | undefined;
}

/** A metric of the table, by the kind of data that it needs. */
export interface MetricOf<Needs extends MetricNeeds> {
  readonly name: string;
  readonly needs: Needs;
  /** What it is, in a few words. */
  readonly title: string;
  /** Everything that decides its value beside the data. */
  signature(cases: readonly MetricCases[Needs][]): string;
  measure(cases: readonly MetricCases[Needs][]): Measurement;
  /** Of one example by itself, where that means something. */
  single?(one: MetricCases[Needs]): number;
  readonly better: "higher" | "lower";
  /** Digits after the point with which it is written; 4 where absent. */
  readonly decimals?: number;
}

/** A metric of any kind. */
export type Metric = { readonly [Needs in MetricNeeds]: MetricOf<Needs> }[MetricNeeds];

/** A measurement from what each example adds to it. */
export function measured<Part>(
  parts: readonly Part[],
  total: (parts: readonly Part[]) => number | undefined,
): Measurement {
  const over = (indices: readonly number[]): number | undefined =>
    total(indices.map((i) => parts[i] as Part));
  return { value: parts.length === 0 ? undefined : total(parts), over };
}

/** A measurement that is the mean of one value an example. */
export function meanOf(values: readonly number[]): Measurement {
  return measured(values, (some) => some.reduce((sum, value) => sum + value, 0) / some.length);
}
