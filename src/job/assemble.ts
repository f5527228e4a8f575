import { adapterBase } from "../adapters/adapter.ts";
import type { Example } from "../data/examples.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import { type EvaluationData, evaluateModel } from "../eval/evaluate.ts";
import type { FederatedClient } from "../federation/door.ts";
import type { Committed } from "../federation/federate.ts";
import type { BaseChange, Strategy } from "../federation/strategy.ts";
import { type Evaluation, type LocalTrainer, localTrainer } from "../federation/trainer.ts";
import type { TrainingParts } from "../federation/training-parts.ts";
import { meanSquaredError, pearson, spearman } from "../metrics/correlation.ts";
import { matthewsCorrelation } from "../metrics/matthews.ts";
import type { Metric } from "../metrics/metric.ts";
import type { FoundModel } from "../models/load.ts";
import type { Params } from "../tensor/params.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { openPool, type Pool, type PoolPlan, planPool } from "../train/pool.node.ts";
import { type JobAdapter, jobAdapter, rankOfClient, readInitialParams } from "./adapter.ts";
import { readAdapterFrom } from "./adapter-from.node.ts";
import { changesWeights } from "./cross-checks.ts";
import {
  evaluatedRecords,
  type JobData,
  readJobRecords,
  type Silo,
  spread,
  tokenizeRecords,
} from "./data.ts";
import { answerOptions, evaluationData } from "./evaluation-data.ts";
import type { RunHeader } from "./events.ts";
import { localModel } from "./hub.node.ts";
import type { Job } from "./job.ts";
import { localOptions } from "./local.ts";
import { type MemoryPlan, memoryPlan, shortage, workerMemory } from "./memory-plan.node.ts";
import { namedMetrics } from "./metrics.node.ts";
import { findJobModel, modelDigest, numLabelsOf } from "./model.node.ts";
import { described, JobError } from "./problem.ts";
import { jobStrategy } from "./updates.ts";

/** The parts of a job, loaded and fitted to each other; nothing is running yet. */
export interface Assembly {
  readonly model: FoundModel;
  /** The base weights as they are held, read when they are asked for: workers hold their own. */
  readonly weights: () => Promise<Params>;
  readonly tokenizer: Tokenizer;
  readonly data: JobData;
  readonly heldOut: readonly Example[];
  /** The metrics that the job names, and the held-out data as they need them. */
  readonly measured: { readonly metrics: readonly Metric[]; readonly data: EvaluationData };
  readonly strategy: Strategy;
  readonly adapter: JobAdapter;
  readonly clients: readonly FederatedClient[];
  readonly silos: readonly Silo[];
  readonly initial: Params;
  /** Clients that a round waits for, and their share of all. */
  readonly perRound: number;
  readonly participation: number;
  readonly base: { readonly root: string; readonly bytes: number };
  readonly plan: PoolPlan;
  readonly memory: MemoryPlan;
  readonly header: RunHeader;
}

/**
 * Loads and checks everything that a job names. What is wrong comes out here, before anything runs or is written, as
 * TributaryError.
 */
export async function assemble(job: Job & { readonly out: string }): Promise<Assembly> {
  const strategy = jobStrategy(job);
  const { model, tokenizer, weights } = await findJobModel(job);
  const { vocabularySize } = tokenizer;
  if (vocabularySize > model.config.vocabSize) {
    throw new TributaryError(
      "unsupported-model",
      `model: the tokenizer has ${vocabularySize} tokens, the model ${model.config.vocabSize}; take the tokenizer of this model`,
    );
  }
  if (job.data.packing && !model.model.reads.includes("segment_ids")) {
    throw new TributaryError(
      "unsupported-model",
      `data.packing: ${model.model.type} models cannot keep sequences of one row apart; remove it`,
    );
  }
  const positions = model.config.maxPositions;
  const maxLength = Math.min(job.data.maxLength, positions);
  const metrics = await namedMetrics(job.evaluation.metrics ?? [], job.task);
  const records = await readJobRecords(job);
  const data = tokenizeRecords(
    { ...job, data: { ...job.data, maxLength } },
    evaluatedRecords(job, records),
    tokenizer,
  );
  const measured = evaluationData(job, records[job.evaluation.split], {
    tokenizer,
    maxPositions: positions,
    metrics,
  });
  const heldOut = spread(
    job.evaluation.split === "test" ? data.test : data.validation,
    job.evaluation.maxExamples,
  );
  const silos = strategy.declares.centralized === true ? [pooled(data.silos)] : data.silos;
  const adapter = atTheDoor("adapter", () => jobAdapter(job.adapter, model, strategy));
  const clients = silos.map(({ name, examples }, i): FederatedClient => {
    const rank = rankOfClient(job.adapter, name, i);
    const numExamples = job.weighting === "uniform" ? 1 : examples.length;
    return { id: name, rank, scaling: adapter.scaling(rank), numExamples };
  });
  const from = await readAdapterFrom(job, model);
  const initial = await readInitialParams(adapter, weights, job.seed, from).catch(refused("adapter"));
  const perRound = clientsOfRound(job, clients.length);
  refuseQuorum(job, perRound);
  const tensors = [...adapterBase(model).parameters.values()];
  const parameters = tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const worker = workerMemory(job, model, adapter, {
    trained: silos.flatMap(({ examples }) => examples),
    heldOut,
  });
  const plan = planPool({
    tasks: perRound,
    weightBytes: worker.weights,
    workerBytes: worker.total,
    workers: job.workers === "auto" ? undefined : job.workers,
    threads: job.threads === "auto" ? undefined : job.threads,
  });
  const memory = memoryPlan(worker, {
    workers: plan.workers,
    holdsWeights: job.generate !== undefined || metrics.length > 0 || changesWeights(strategy),
  });
  const short = shortage(memory);
  const fresh = model.initialized.filter((name) => from?.params.has(name) !== true);
  const notes = [
    ...data.notes,
    ...measured.notes,
    ...(short === undefined ? [] : [short]),
    ...(job.weights === "random" ? ["weights: random, drawn from the seed"] : []),
    ...(job.weights !== "random" && fresh.length > 0 ? [`fresh in the model: ${fresh.join(", ")}`] : []),
    ...(maxLength < job.data.maxLength && model.config.image === undefined
      ? [`data.maxLength ${job.data.maxLength} is cut to the ${positions} positions of the model`]
      : []),
    ...(strategy.declares.centralized === true
      ? ["centralized: one client holds the data of all silos"]
      : []),
  ];
  const header: RunHeader = {
    name: job.name,
    folder: job.out,
    model: { path: job.model, family: model.model.type, parameters },
    task: job.task,
    adapter: adapter.text,
    trainable: countOf(initial),
    strategy: { name: strategy.name, paper: strategy.paper },
    silos: silos.map(({ name, examples }) => {
      const labels = data.labels?.get(name);
      return { name, examples: examples.length, ...(labels === undefined ? {} : { labels }) };
    }),
    picture: data.picture,
    perRound,
    rounds: job.rounds,
    ...(job.budget === undefined ? {} : { budget: job.budget }),
    heldOut: { split: job.evaluation.split, examples: heldOut.length },
    device: job.device,
    workers: plan.workers,
    threads: plan.threads,
    why: plan.why,
    notes,
  };
  return {
    model,
    weights,
    tokenizer,
    data,
    heldOut,
    measured: { metrics, data: measured.data },
    strategy,
    adapter,
    clients,
    silos,
    initial,
    perRound,
    participation: perRound / clients.length,
    memory,
    base: { root: await modelDigest(await localModel(job.model), job), bytes: 4 * parameters },
    plan,
    header,
  };
}

/** Starts the workers and the trainer of an assembly. */
export async function openTraining(
  job: Job,
  assembly: Pick<Assembly, "model" | "weights" | "strategy" | "adapter" | "silos" | "plan">,
  parts?: TrainingParts,
): Promise<{ readonly pool: Pool; readonly trainer: LocalTrainer }> {
  const numLabels = numLabelsOf(job);
  const pool = await openPool({
    base: {
      kind: "folder",
      path: await localModel(job.model),
      task: job.task,
      seed: job.seed,
      ...(numLabels === undefined ? {} : { numLabels }),
      ...(job.basePrecision === undefined ? {} : { precision: job.basePrecision }),
      ...(job.weights === undefined ? {} : { weights: job.weights }),
    },
    plan: assembly.plan,
    device: job.device,
  });
  const trainer = localTrainer({
    model: assembly.model,
    pretrained: changesWeights(assembly.strategy) ? await assembly.weights() : new Map(),
    attach: (rank) => assembly.adapter.attach(rank),
    examples: new Map(assembly.silos.map(({ name, examples }) => [name, examples])),
    local: localOptions(job.local),
    pool,
    ...(parts && { parts }),
  });
  return { pool, trainer: job.weighting === "uniform" ? uniform(trainer) : trainer };
}

/** Trains alike, and lets every client weigh the same. */
function uniform(trainer: LocalTrainer): LocalTrainer {
  return {
    ...trainer,
    train: async (task, options) => ({ ...(await trainer.train(task, options)), numExamples: 1 }),
  };
}

/** Held-out measurements of a committed state; the mean over the clients where each has its own model. */
export async function measure(
  state: Committed,
  assembly: MeasuredAssembly,
  trainer: LocalTrainer,
  { task, evaluation }: Pick<Job, "task" | "evaluation">,
  signal: AbortSignal,
): Promise<Readonly<Record<string, number>>> {
  const { strategy, clients, heldOut, adapter } = assembly;
  if (heldOut.length === 0) return {};
  const one = async (
    params: Params,
    rank: number,
    personalBase: readonly BaseChange[] = [],
  ): Promise<Record<string, number>> => {
    const tuned = { params, chain: state.chain, rank, personalBase };
    const found = await trainer.evaluate(tuned, heldOut, { batchSize: evaluation.batchSize, signal });
    const changed = trainer.changedWeights(state.chain, personalBase);
    const named = await namedMeasurements(assembly, { params, rank, changed }, evaluation, signal);
    return { ...named, ...measurements(found, task, heldOut) };
  };
  if (strategy.declares.personal !== true) return one(state.global(), adapter.rank);
  const all: Record<string, number>[] = [];
  for (const client of clients) {
    const { start, personalBase } = await state.personal(client);
    all.push(await one(start.params, client.rank, personalBase));
  }
  const mean = (name: string): number =>
    all.reduce((sum, one) => sum + (one[name] ?? Number.NaN), 0) / all.length;
  const names = Object.keys(all[0] ?? {}).filter((name) => all.every((one) => one[name] !== undefined));
  return Object.fromEntries(names.map((name) => [name, mean(name)]));
}

/** What `measure` reads of an assembly. */
export type MeasuredAssembly = Pick<
  Assembly,
  "strategy" | "clients" | "heldOut" | "adapter" | "model" | "weights" | "tokenizer" | "plan" | "measured"
>;

/** The metrics that the job names. */
async function namedMeasurements(
  { model, weights, tokenizer, adapter, plan, measured }: MeasuredAssembly,
  { params, rank, changed }: { readonly params: Params; readonly rank: number; readonly changed: Params },
  evaluation: Job["evaluation"],
  signal: AbortSignal,
): Promise<Record<string, number>> {
  if (measured.metrics.length === 0) return {};
  const found = await evaluateModel(
    {
      model,
      tokenizer,
      attached: adapter.attach(rank),
      base: new Map([...(await weights()), ...changed]),
      params,
      threads: plan.threads * plan.workers,
    },
    measured.data,
    measured.metrics,
    { batchSize: evaluation.batchSize, resamples: 0, signal, ...answerOptions(evaluation) },
  );
  return Object.fromEntries(found.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
}

/** Measurements of some examples by their names in records; a correlation that is not defined is absent. */
export function measurements(
  { loss, accuracy, predictions }: Pick<Evaluation, "loss" | "accuracy" | "predictions">,
  task: Job["task"],
  examples: readonly Example[],
): Record<string, number> {
  return {
    loss,
    ...(task === "causal-lm" ? { perplexity: Math.exp(loss) } : {}),
    ...(accuracy === undefined ? {} : { accuracy }),
    ...(task === "sequence-classification" && predictions !== undefined
      ? { mcc: matthewsCorrelation(predictions, targetsOf(examples)) }
      : {}),
    ...(task === "regression" && predictions !== undefined ? agreement(predictions, examples) : {}),
  };
}

function agreement(predictions: readonly number[], examples: readonly Example[]): Record<string, number> {
  const targets = targetsOf(examples);
  const [linear, ranked] = [pearson(predictions, targets), spearman(predictions, targets)];
  return {
    ...(linear === undefined ? {} : { pearson: linear }),
    ...(ranked === undefined ? {} : { spearman: ranked }),
    mse: meanSquaredError(predictions, targets),
  };
}

const targetsOf = (examples: readonly Example[]): number[] => examples.map(({ label = Number.NaN }) => label);

/** Number of scalars of a set of tensors. */
export function countOf(params: Params): number {
  return [...params.values()].reduce((sum, { data }) => sum + data.length, 0);
}

function pooled(silos: readonly Silo[]): Silo {
  return { name: "all", examples: silos.flatMap(({ examples }) => examples) };
}

/** How many of all clients a round waits for. */
export function clientsOfRound(
  { participation, clientsPerRound }: Pick<Job, "participation" | "clientsPerRound">,
  all: number,
): number {
  return Math.min(all, clientsPerRound ?? Math.max(1, Math.round(participation * all)));
}

function refuseQuorum({ quorum = 1 }: Job, perRound: number): void {
  if (quorum <= perRound) return;
  const expected = `at most ${perRound}, the clients that a round waits for`;
  throw new JobError([
    { path: "quorum", got: described(quorum), expected, next: "lower it, or ask more clients" },
  ]);
}

/** Runs what refuses options by RangeError or TypeError, and says that the job has to be corrected. */
function atTheDoor<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    return refused(path)(cause);
  }
}

/** Throws what was thrown, as a fault of the job where it refuses options. */
const refused =
  (path: string) =>
  (cause: unknown): never => {
    if (cause instanceof RangeError || cause instanceof TypeError) {
      throw new TributaryError("job-invalid", `${path}: ${cause.message}; correct ${path} in the job`, {
        cause,
      });
    }
    throw cause;
  };
