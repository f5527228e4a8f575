import { presetNamed } from "../data/presets/presets.ts";
import { valueAt } from "./schema-node.ts";

type Section = Readonly<Record<string, unknown>>;

/**
 * A job as it is written, with what its preset says laid below it. Parts that a job divides its data into, and what it
 * evaluates, are taken from the preset only together.
 */
export function withPreset(raw: unknown): unknown {
  const name = valueAt(raw, ["data", "preset"]);
  const preset = typeof name === "string" ? presetNamed(name) : undefined;
  if (preset === undefined) return raw;
  const { task, data, evaluation } = preset.job;
  const job = sectionOf(raw);
  const own = sectionOf(job.data);
  const measured = sectionOf(job.evaluation);
  const sameTask = job.task === undefined || job.task === task;
  const { metrics, ...others } = evaluation;
  const { split, ...answers } = others;
  return {
    task,
    ...job,
    data: { ...data, ...own, fields: { ...data.fields, ...sectionOf(own.fields) } },
    evaluation: {
      ...answers,
      ...(sameTask && metrics !== undefined ? { metrics } : {}),
      ...(split !== undefined && own.splits === undefined ? { split } : {}),
      ...measured,
    },
  };
}

function sectionOf(value: unknown): Section {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
}
