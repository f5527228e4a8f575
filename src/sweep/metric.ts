import type { JobTask } from "../job/job.ts";

/** What held-out data are measured by. */
export const metricNames: readonly ["accuracy", "mcc", "pearson", "spearman", "perplexity", "loss", "mse"] = [
  "accuracy",
  "mcc",
  "pearson",
  "spearman",
  "perplexity",
  "loss",
  "mse",
];

/** A measure of held-out data. */
export type MetricName = (typeof metricNames)[number];

/** Which value of a measure counts: that after the last round, or the best after any round. */
export type MetricProtocol = "last" | "best";

/** The measures that a task has, the one that leads a table first. */
export const metricsOfTask: Readonly<Record<JobTask, readonly MetricName[]>> = {
  "causal-lm": ["perplexity", "loss", "accuracy"],
  "sequence-classification": ["accuracy", "mcc", "loss"],
  regression: ["pearson", "spearman", "mse", "loss"],
  "image-classification": ["accuracy", "loss"],
};

const falling: readonly string[] = ["perplexity", "loss", "mse"];

/** Digits after the point with which a measure is written. */
export function decimalsOf(metric: string): number {
  return metric === "perplexity" ? 2 : 4;
}

/** The best of some values of a measure; undefined where there are none. */
export function bestOf(metric: string, values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  return falling.includes(metric) ? Math.min(...values) : Math.max(...values);
}
