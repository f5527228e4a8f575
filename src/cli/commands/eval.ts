import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { TributaryError } from "../../errors.ts";
import type { MeasuredMetric } from "../../eval/evaluate.ts";
import {
  evaluateJob,
  type JobEvaluation,
  modelOfJob,
  modelsOfRun,
  type NamedModel,
  taskOfModel,
} from "../../job/evaluate.ts";
import type { TypedFlag } from "../../job/flags.ts";
import { localModel } from "../../job/hub.node.ts";
import type { Job } from "../../job/job.ts";
import { loadJob, placedModel, readResolvedJob } from "../../job/load.node.ts";
import { count } from "../../job/units.ts";
import { usualStrategy } from "../../strategies/catalogue/entries.ts";
import { activationsFlag, activationsSpec } from "../activations-flag.ts";
import { clientSpec } from "../client-flag.ts";
import type { Command, ParsedArgs } from "../command.ts";
import { interrupted, usageError } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { precisionFlag, precisionSpec } from "../precision-flag.ts";
import { measure } from "../progress/format.ts";
import { table } from "../progress/table.ts";
import { lines } from "../terminal.ts";
import { openEvaluationDisplay } from "./eval-progress.ts";

/** `tributary eval`. */
export const evaluate: Command = {
  name: "eval",
  summary: "measure a model, or what a run trained beside its base",
  usage: "RUN|MODEL [--data FILE] [--job JOB] [flags]",
  arguments: [1, 1],
  takesJob: true,
  flags: [
    { name: "data", value: "FILE", description: "all of this file in place of what the job holds out" },
    { name: "job", value: "JOB", description: "for a model: the job whose data and task are taken" },
    {
      name: "preset",
      value: "NAME",
      description: "for a model: the data set that FILE holds, such as medquad",
    },
    { name: "metrics", value: "A,B", description: "these metrics only (docs/evaluation.md lists them)" },
    { name: "split", value: "validation|test", description: "held-out part (default: as in the job)" },
    { name: "max-examples", value: "N", description: "most examples, spread evenly" },
    { name: "limit", value: "N", description: "the same" },
    precisionSpec,
    activationsSpec,
    clientSpec,
    { name: "tuned", description: "of a run only what it trained, not its base" },
    {
      name: "resamples",
      value: "N",
      description: "samples of the bootstrap; 0: no intervals (default: 1000)",
    },
    { name: "out", short: "o", value: "FILE", description: "write one JSON line for each example" },
  ],
  examples: [
    ["tributary eval runs/my-job", "on the held-out data of the job"],
    ["tributary eval runs/my-job --data new.jsonl --json", "on other data, for a machine"],
    [
      "tributary eval MODEL --data test.jsonl --metrics rougeL,bleu --max-examples 100 --out answers.jsonl",
      "a model folder; the answers too",
    ],
    ["tributary eval MODEL --job job.yaml", "a model on the held-out data of a job"],
  ],
  async run(args, { terminal, signal, json, onInterrupt }) {
    const { positionals, flags } = args;
    const path = await localModel(placedModel(positionals[0] ?? "", terminal.cwd));
    if (!existsSync(path)) {
      throw new TributaryError(
        "missing-file",
        `${path}: no such run or model; give the folder of one, a GGUF file or org/name on the hub`,
      );
    }
    const metrics = flags
      .get("metrics")
      ?.split(",")
      .map((name) => name.trim());
    const resamples = numberFlag(flags, "resamples", { fallback: 1000, minimum: 0, whole: true });
    const threads = availableParallelism();
    const run = await readResolvedJob(path);
    const client = flags.get(clientSpec.name);
    if (run === undefined && client !== undefined)
      throw usageError("--client: a model has no clients; leave it out, or give a run");
    const job =
      run === undefined ? await jobOfModel(path, args, terminal.cwd) : ofRun(run, args, terminal.cwd);
    onInterrupt(() => {});
    const models: readonly NamedModel[] =
      run === undefined
        ? [await modelOfJob(job, threads)]
        : await modelsOfRun(path, job, { threads, client });
    const activations = activationsFlag(flags);
    const chosen = models
      .filter(({ name }) => name === "tuned" || !flags.has("tuned"))
      .map(({ name, model }) => ({ name, model: { ...model, activations } }));
    const display = openEvaluationDisplay(
      { ...terminal, live: terminal.live && !json },
      () => performance.now() / 1000,
    );
    const file = flags.get("out");
    let out: number | undefined;
    let written = 0;
    let found: JobEvaluation;
    try {
      found = await evaluateJob(job, chosen, {
        metrics,
        resamples,
        signal,
        all: flags.has("data"),
        onProgress: (progress) => json || display.show(progress),
        onExample(row) {
          written++;
          if (file === undefined) return;
          out ??= openOutput(resolve(terminal.cwd, file));
          writeSync(out, `${JSON.stringify(row)}\n`);
        },
      });
    } catch (error) {
      if (signal.aborted)
        throw interrupted(
          file === undefined
            ? `stopped after ${written} examples; with --out FILE they are kept`
            : `stopped; the ${written} examples so far are in ${file}`,
        );
      throw error;
    } finally {
      display.end();
      if (out !== undefined) closeSync(out);
    }
    const source = flags.get("data") ?? `${job.evaluation.split} data of ${job.name}`;
    terminal.out(
      json
        ? `${JSON.stringify(record(path, run !== undefined, source, found))}\n`
        : lines(report(source, found, file)),
    );
  },
};

/** The job of a run, with other data and fewer examples where they are asked for. */
function ofRun(job: Job, args: ParsedArgs, cwd: string): Job {
  const { flags } = args;
  for (const name of ["job", "preset", "precision"])
    if (flags.has(name)) throw usageError(`--${name}: a run has its own job; leave it out, or give a model`);
  if (args.job.length > 0)
    throw usageError(
      `--${args.job[0]?.path}: a run keeps its job; leave it out, or give its model with --job`,
    );
  const data = flags.get("data");
  return {
    ...job,
    evaluation: { ...job.evaluation, split: splitOf(flags) ?? job.evaluation.split, ...limitOf(flags) },
    data:
      data === undefined
        ? job.data
        : {
            ...job.data,
            path: data.startsWith("hf://") ? data : resolve(cwd, data),
            splits: { validation: 0 },
          },
    ...(data === undefined ? {} : { partition: { kind: "iid", clients: 1 } }),
  };
}

/** A job for a model without one: keys that say nothing of an evaluation are set to something. */
async function jobOfModel(path: string, { flags, job: typed }: ParsedArgs, cwd: string): Promise<Job> {
  const [file, data, preset] = [flags.get("job"), flags.get("data"), flags.get("preset")];
  const precision = precisionFlag(flags);
  if (file === undefined && data === undefined) {
    throw usageError(
      `eval: ${path} is no run folder; for a model give --data FILE or --job JOB, for a run the folder that tributary run has written`,
    );
  }
  const flag = (key: string, text: string): TypedFlag => ({ path: key, texts: [text] });
  const wanted = new Set(typed.map((one) => one.path));
  const missing = [
    ...(file === undefined && preset === undefined ? [flag("task", "")] : []),
    ...(file === undefined
      ? [
          flag("adapter.kind", "lora"),
          flag("strategy.name", usualStrategy),
          flag("local.optimizer.name", "adamw"),
          flag("local.optimizer.learningRate", "1"),
          flag("rounds", "1"),
        ]
      : []),
  ].filter((one) => !wanted.has(one.path));
  const given = [
    flag("model", path),
    ...(preset === undefined ? [] : [flag("data.preset", preset)]),
    ...(precision === undefined ? [] : [flag("basePrecision", precision)]),
    ...(data === undefined
      ? []
      : [
          flag("data.path", data),
          flag("data.splits.validation", "0"),
          flag("partition.kind", "iid"),
          flag("partition.clients", "1"),
        ]),
  ];
  const filled = await Promise.all(
    missing.map(async (one) => (one.path === "task" ? flag("task", await taskOfModel(path)) : one)),
  );
  const { job } = await loadJob({
    flags: [...filled, ...typed, ...given],
    cwd,
    ...(file === undefined ? {} : { path: file }),
  });
  return {
    ...job,
    evaluation: { ...job.evaluation, split: splitOf(flags) ?? job.evaluation.split, ...limitOf(flags) },
  };
}

function splitOf(flags: ParsedArgs["flags"]): Job["evaluation"]["split"] | undefined {
  const split = flags.get("split");
  if (split === undefined || split === "validation" || split === "test") return split;
  throw usageError(`--split: got ${split}, expected validation or test`);
}

function limitOf(flags: ParsedArgs["flags"]): { readonly maxExamples?: number } {
  const name = flags.has("max-examples") ? "max-examples" : "limit";
  if (!flags.has(name)) return {};
  return { maxExamples: numberFlag(flags, name, { fallback: 1, minimum: 1, whole: true }) };
}

function openOutput(path: string): number {
  try {
    return openSync(path, "w");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TributaryError("output", `--out: ${path} cannot be written (${why}); give another file`, {
      cause,
    });
  }
}

/** The evaluation for machines; `base` and `tuned` hold the values alone. */
function record(path: string, isRun: boolean, data: string, { models, notes }: JobEvaluation): object {
  const values = (metrics: readonly MeasuredMetric[]): object =>
    Object.fromEntries(metrics.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
  return {
    [isRun ? "run" : "model"]: path,
    data,
    notes,
    ...Object.fromEntries(models.map(({ model, metrics }) => [model, values(metrics)])),
    metrics: Object.fromEntries(models.map(({ model, metrics }) => [model, metrics])),
  };
}

function report(source: string, { models, notes }: JobEvaluation, file: string | undefined): string[] {
  const [first] = models;
  const names = first?.metrics.map(({ name }) => name) ?? [];
  const found = (model: JobEvaluation["models"][number], name: string): MeasuredMetric | undefined =>
    model.metrics.find((metric) => metric.name === name);
  const rows = names.map((name) => [
    name,
    ...models.flatMap((model) => {
      const { value, low, high } = found(model, name) ?? {};
      return [
        measure(name, value),
        low === undefined ? "" : `${measure(name, low)} to ${measure(name, high)}`,
      ];
    }),
  ]);
  const columns = models.flatMap(({ model }) => [
    { title: model, align: "right" as const },
    { title: "95 %", align: "right" as const },
  ]);
  const sizes = [...new Set(first?.metrics.map(({ examples }) => examples))];
  const signatures = first?.metrics.map(({ name, signature }) => [name, signature]) ?? [];
  return [
    `${sizes.map(count).join(" or ")} examples (${source})`,
    ...table([{ title: "metric" }, ...columns], rows),
    "",
    ...table([{ title: "metric" }, { title: "signature" }], signatures),
    ...notes.map((note) => `note: ${note}`),
    ...(file === undefined ? [] : [`examples: ${file}`]),
  ];
}
