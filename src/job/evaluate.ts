import type { DataRecord } from "../data/record.ts";
import { TributaryError } from "../errors.ts";
import {
  type EvaluateOptions,
  type EvaluationProgress,
  type ExampleRow,
  evaluateModel,
  type MeasuredMetric,
} from "../eval/evaluate.ts";
import type { EvaluatedModel } from "../eval/model.ts";
import { openFolder } from "../formats/files.node.ts";
import { describeModel, openModel } from "../models/load.ts";
import { strategyOf } from "../strategies/catalogue/entries.ts";
import { jobAdapter } from "./adapter.ts";
import { readJobRecords } from "./data.ts";
import { answerOptions, evaluationData } from "./evaluation-data.ts";
import type { Job, JobTask } from "./job.ts";
import { namedMetrics } from "./metrics.node.ts";
import { loadJobModel } from "./model.node.ts";
import { standardMetrics } from "./task-metrics.ts";
import { openTuned, startOfRun } from "./tuned.ts";

/** A model under the name that tables and lines give it. */
export interface NamedModel {
  readonly name: "base" | "tuned";
  readonly model: EvaluatedModel;
}

/** Which of the models something is said of. */
export type OfModel<T> = T & { readonly model: NamedModel["name"] };

export interface EvaluateJobOptions extends Pick<EvaluateOptions, "resamples" | "signal"> {
  /** Metrics in place of those that the job names and that its task always has. */
  readonly metrics?: readonly string[] | undefined;
  /** Whether all the data of the job are evaluated, and not only what is held out. */
  readonly all?: boolean;
  readonly onProgress?: (progress: OfModel<EvaluationProgress>) => void;
  readonly onExample?: (row: OfModel<ExampleRow>) => void;
}

/** What the models measure. */
export interface JobEvaluation {
  readonly models: readonly OfModel<{ readonly metrics: readonly MeasuredMetric[] }>[];
  readonly notes: readonly string[];
}

/** The task that a model folder is made for. Throws TributaryError where jobs have none like it. */
export async function taskOfModel(path: string): Promise<JobTask> {
  const { json } = await openModel(await openFolder(path));
  const { task } = describeModel(json);
  const known = Object.keys(standardMetrics);
  const found = known.find((name): name is JobTask => name === task);
  if (found !== undefined) return found;
  throw new TributaryError(
    "unsupported-model",
    `${path}: is a model for ${task}, expected one for ${known.join(", ")}; say what it is evaluated for with --task`,
  );
}

export interface ModelsOfRunOptions {
  readonly threads: number;
  /** Whose model, where each client of the run has one of its own. */
  readonly client?: string | undefined;
}

/** The model of a run before round 1, and what the run trained. */
export async function modelsOfRun(
  folder: string,
  job: Job,
  { threads, client }: ModelsOfRunOptions,
): Promise<NamedModel[]> {
  const { model, tokenizer, attached, base, params } = await openTuned(folder, { client });
  const adapter = jobAdapter(job.adapter, model, strategyOf(job.strategy));
  const initial = await startOfRun(job, { model, adapter });
  const common = { model, tokenizer, threads };
  return [
    {
      name: "base",
      model: { ...common, attached: adapter.attach(adapter.rank), base: model.weights, params: initial },
    },
    { name: "tuned", model: { ...common, attached, base, params } },
  ];
}

/** The model of a job as it is before any training. */
export async function modelOfJob(job: Job, threads: number): Promise<NamedModel> {
  const { model, tokenizer } = await loadJobModel(job);
  return {
    name: "base",
    model: { model, tokenizer, attached: [], base: model.weights, params: new Map(), threads },
  };
}

/** Measures models on the held-out data of a job, or on all its data. */
export async function evaluateJob(
  job: Job,
  models: readonly NamedModel[],
  {
    metrics: names = [...standardMetrics[job.task], ...(job.evaluation.metrics ?? [])],
    all = false,
    onProgress = () => {},
    onExample = () => {},
    ...options
  }: EvaluateJobOptions = {},
): Promise<JobEvaluation> {
  const metrics = await namedMetrics(names, job.task);
  const records = await recordsOf(job, all);
  const found: { model: NamedModel["name"]; metrics: MeasuredMetric[] }[] = [];
  const notes = new Set<string>();
  for (const { name, model } of models) {
    const { tokenizer } = model;
    const { maxPositions, numLabels } = model.model.config;
    const asked =
      job.data.classes === undefined ? { ...job, data: { ...job.data, classes: numLabels } } : job;
    const prepared = evaluationData(asked, records, { tokenizer, maxPositions, metrics });
    for (const note of prepared.notes) notes.add(note);
    const measured = await evaluateModel(model, prepared.data, metrics, {
      ...options,
      ...answerOptions(job.evaluation),
      batchSize: job.evaluation.batchSize,
      seed: job.seed,
      onProgress: (progress) => onProgress({ ...progress, model: name }),
      onExample: (row) => onExample({ ...row, model: name }),
    });
    found.push({ model: name, metrics: measured });
  }
  return { models: found, notes: [...notes] };
}

/** The records of a job that are evaluated: what it holds out, or all. */
async function recordsOf(job: Job, all: boolean): Promise<readonly DataRecord[]> {
  const read = await readJobRecords(job);
  const { split } = job.evaluation;
  const records = all ? read.records : read[split];
  if (records.length > 0) return records;
  throw new TributaryError(
    "no-examples",
    `eval: the job holds out no ${split} data; take the other --split, or give --data FILE`,
  );
}
