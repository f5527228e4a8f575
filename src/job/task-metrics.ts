import type { MetricNeeds } from "../metrics/metric.ts";
import type { JobTask } from "./job.ts";

/** The kinds of data that a task can be measured on. */
export const needsOfTask: Readonly<Record<JobTask, readonly MetricNeeds[]>> = {
  "causal-lm": ["losses", "choices", "texts"],
  "sequence-classification": ["classes"],
  "image-classification": ["classes"],
  regression: ["numbers"],
};

/** What every evaluated round is measured by, the measure that leads a table first. */
export const roundMetrics: Readonly<Record<JobTask, readonly string[]>> = {
  "causal-lm": ["perplexity", "loss", "accuracy"],
  "sequence-classification": ["accuracy", "mcc", "loss"],
  regression: ["pearson", "spearman", "mse", "loss"],
  "image-classification": ["accuracy", "loss"],
};

/** The metrics of a task where none are named. */
export const standardMetrics: Readonly<Record<JobTask, readonly string[]>> = {
  "causal-lm": ["loss", "perplexity", "tokenAccuracy"],
  "sequence-classification": ["crossEntropy", "accuracy", "mcc", "ece"],
  "image-classification": ["crossEntropy", "accuracy", "mcc", "ece"],
  regression: ["mse", "pearson", "spearman"],
};
