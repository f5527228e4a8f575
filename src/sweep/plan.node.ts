import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Job } from "../job/job.ts";
import { nameOf, readJobText, readSection, withAbsolutePaths } from "../job/load.node.ts";
import { JobError, type PlaceOf } from "../job/problem.ts";
import { valueAt } from "../job/schema-node.ts";
import { needsOfTask, roundMetrics } from "../job/task-metrics.ts";
import { metricNames } from "../metrics/table.ts";
import { bytesOf, checkSweep, labelsOf } from "./check.ts";
import { checkDrafts, draftsOf } from "./drafts.ts";
import { withPooledLength } from "./pooled.node.ts";
import type { JobKeys, Sweep, SweepPlan, SweepRun } from "./sweep.ts";

export interface PlanSweepOptions {
  /** The sweep file. */
  readonly path: string;
  /** Folder that `path` and `out` are relative to. */
  readonly cwd: string;
  /** Where the results go. Default: runs/NAME-sweep. */
  readonly out?: string;
  /** Runs side by side. Default: one a core. */
  readonly workers?: number;
}

/**
 * Reads a sweep file and puts the job of every run together. Throws JobError with everything that is wrong in any of them, or
 * TributaryError `missing-file` or `job-syntax`.
 */
export async function planSweep({
  path,
  cwd,
  out,
  workers = availableParallelism(),
}: PlanSweepOptions): Promise<SweepPlan> {
  const file = resolve(cwd, path);
  const text = await readSection(file, cwd, "job, methods, seeds and budget");
  const sweep = withPaths(checkSweep(text.value, text.placeOf), dirname(file));
  const base = await readJobText(sweep.job, cwd);
  const placeOf: PlaceOf = (at) =>
    /^(?:set|methods|partitions|metric)(?:\.|$)/.test(at) ? text.placeOf(at) : base.placeOf(at);
  const sound = checkDrafts(draftsOf(sweep, base.value), placeOf);
  const metric = metricOf(sweep, sound[0]?.job.task ?? "causal-lm", placeOf);
  const name = sweep.name ?? nameOf(file);
  const folder = resolve(cwd, out ?? join("runs", `${name}-sweep`));
  const sideBySide = Math.min(workers, sound.length);
  const runs: SweepRun[] = [];
  for (const { draft, job } of sound) {
    const { method, partition, seed } = draft;
    const id = `${method.slug}/${partition.slug}/seed-${seed}`;
    const long = hasLength(sweep.methods[method.label]) ? job : await withPooledLength(job);
    const { generate: _, ...quiet } = sideBySide > 1 ? onOneCore(long) : long;
    const placed = { ...measuredBy(metric, quiet), name, out: join(folder, "runs", id) };
    runs.push({ id, method: method.label, partition: partition.label, seed, job: placed });
  }
  const { bytes, ...budget } = sweep.budget;
  return {
    name,
    folder,
    methods: labelsOf(sweep.methods),
    partitions: labelsOf(Object.fromEntries(sound.map(({ draft }) => [draft.partition.label, {}]))),
    seeds: sweep.seeds,
    budget: bytes === undefined ? budget : { bytes: bytesOf(bytes) },
    metric,
    protocol: sweep.protocol,
    workers: sideBySide,
    runs,
  };
}

/** A sweep whose paths are absolute. */
function withPaths({ job, set, methods, ...sweep }: Sweep, home: string): Sweep {
  const absolute = (keys: JobKeys): JobKeys => withAbsolutePaths(keys, home);
  return {
    ...sweep,
    job: resolve(home, job),
    set: absolute(set),
    methods: Object.fromEntries(Object.entries(methods).map(([label, keys]) => [label, absolute(keys)])),
  };
}

/** Whether a method says itself how long its rounds are. */
function hasLength(keys: JobKeys = {}): boolean {
  return ["steps", "epochs"].some((key) => valueAt(keys, ["local", key]) !== undefined);
}

/** A job that leaves the other cores to other runs, where it does not say how many it takes. */
function onOneCore(job: Job): Job {
  const one = <T>(value: T | "auto"): T | 1 => (value === "auto" ? 1 : value);
  return { ...job, workers: one(job.workers), threads: one(job.threads) };
}

function metricOf({ metric }: Sweep, task: Job["task"], placeOf: PlaceOf): string {
  const [first = "loss"] = roundMetrics[task];
  if (metric === undefined) return first;
  const known = [...new Set([...roundMetrics[task], ...metricNames(needsOfTask[task])])];
  if (known.includes(metric)) return metric;
  throw new JobError(
    [{ path: "metric", got: metric, expected: `one of ${known.join(", ")} for the task ${task}` }],
    placeOf,
  );
}

/** A job whose evaluated rounds have a metric. */
function measuredBy<J extends Omit<Job, "generate">>(metric: string, job: J): J {
  const { metrics = [] } = job.evaluation;
  if ([...roundMetrics[job.task], ...metrics].includes(metric)) return job;
  return { ...job, evaluation: { ...job.evaluation, metrics: [...metrics, metric] } };
}
