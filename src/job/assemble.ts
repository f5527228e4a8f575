import type { Example } from "../data/examples.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { TributaryError } from "../errors.ts";
import type { FederatedClient } from "../federation/door.ts";
import type { Committed } from "../federation/federate.ts";
import type { Strategy } from "../federation/strategy.ts";
import { type Evaluation, type LocalTrainer, localTrainer } from "../federation/trainer.ts";
import { openFolder } from "../formats/files.node.ts";
import { readPeftAdapter } from "../formats/peft.ts";
import { meanSquaredError, pearson, spearman } from "../metrics/correlation.ts";
import { matthewsCorrelation } from "../metrics/matthews.ts";
import type { LoadedModel } from "../models/load.ts";
import type { Params } from "../tensor/params.ts";
import { openPool, type Pool, type PoolPlan, planPool } from "../train/pool.node.ts";
import { initialParams, type JobAdapter, jobAdapter, rankOfClient } from "./adapter.ts";
import {
  evaluatedRecords,
  type JobData,
  readJobRecords,
  type Silo,
  spread,
  tokenizeRecords,
} from "./data.ts";
import type { RunHeader } from "./events.ts";
import type { Job } from "./job.ts";
import { localOptions } from "./local.ts";
import { loadJobModel, modelDigest, numLabelsOf } from "./model.node.ts";
import { described, JobError } from "./problem.ts";
import { jobStrategy } from "./updates.ts";

/** The parts of a job, loaded and fitted to each other; nothing is running yet. */
export interface Assembly {
  readonly model: LoadedModel;
  readonly tokenizer: Tokenizer;
  readonly data: JobData;
  readonly heldOut: readonly Example[];
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
  readonly header: RunHeader;
}

/**
 * Loads and checks everything that a job names. What is wrong comes out here, before anything runs or is written, as
 * TributaryError.
 */
export async function assemble(job: Job & { readonly out: string }): Promise<Assembly> {
  const strategy = jobStrategy(job);
  const { model, tokenizer } = await loadJobModel(job);
  const { vocabularySize } = tokenizer;
  if (vocabularySize > model.config.vocabSize) {
    throw new TributaryError(
      "unsupported-model",
      `model: the tokenizer has ${vocabularySize} tokens, the model ${model.config.vocabSize}; take the tokenizer of this model`,
    );
  }
  const positions = model.config.maxPositions;
  const maxLength = Math.min(job.data.maxLength, positions);
  const data = tokenizeRecords(
    { ...job, data: { ...job.data, maxLength } },
    evaluatedRecords(job, await readJobRecords(job)),
    tokenizer,
  );
  const heldOut = spread(
    job.evaluation.split === "test" ? data.test : data.validation,
    job.evaluation.maxExamples,
  );
  const silos = strategy.declares.centralized === true ? [pooled(data.silos)] : data.silos;
  const adapter = atTheDoor("adapter", () => jobAdapter(job.adapter, model, strategy));
  const clients = silos.map(({ name, examples }, i): FederatedClient => {
    const rank = rankOfClient(job.adapter, name, i);
    return { id: name, rank, scaling: adapter.scaling(rank), numExamples: examples.length };
  });
  const from =
    job.adapter.kind === "lora" && job.adapter.from !== undefined
      ? await readPeftAdapter(await openFolder(job.adapter.from))
      : undefined;
  const initial = atTheDoor("adapter", () => initialParams(adapter, model, job.seed, from));
  const perRound = clientsOfRound(job, clients.length);
  refuseQuorum(job, perRound);
  const parameters = countOf(model.weights);
  const plan = planPool({
    tasks: perRound,
    weightBytes: 4 * parameters,
    workers: job.workers === "auto" ? undefined : job.workers,
    threads: job.threads === "auto" ? undefined : job.threads,
  });
  const fresh = model.initialized.filter((name) => from?.params.has(name) !== true);
  const notes = [
    ...data.notes,
    ...(fresh.length > 0 ? [`fresh in the model: ${fresh.join(", ")}`] : []),
    ...(maxLength < job.data.maxLength
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
    tokenizer,
    data,
    heldOut,
    strategy,
    adapter,
    clients,
    silos,
    initial,
    perRound,
    participation: perRound / clients.length,
    base: { root: await modelDigest(job.model), bytes: 4 * parameters },
    plan,
    header,
  };
}

/** Starts the workers and the trainer of an assembly. */
export async function openTraining(
  job: Job,
  assembly: Pick<Assembly, "model" | "adapter" | "silos" | "plan">,
): Promise<{ readonly pool: Pool; readonly trainer: LocalTrainer }> {
  const numLabels = numLabelsOf(job);
  const pool = await openPool({
    base: {
      kind: "folder",
      path: job.model,
      task: job.task,
      seed: job.seed,
      ...(numLabels === undefined ? {} : { numLabels }),
    },
    plan: assembly.plan,
    device: job.device,
  });
  const trainer = localTrainer({
    model: assembly.model,
    pretrained: assembly.model.weights,
    attach: (rank) => assembly.adapter.attach(rank),
    examples: new Map(assembly.silos.map(({ name, examples }) => [name, examples])),
    local: localOptions(job.local),
    pool,
  });
  return { pool, trainer };
}

/** Held-out measurements of a committed state; the mean over the clients where each has its own model. */
export async function measure(
  state: Committed,
  { strategy, clients, heldOut, adapter }: Pick<Assembly, "strategy" | "clients" | "heldOut" | "adapter">,
  trainer: LocalTrainer,
  { task, evaluation: { batchSize } }: Pick<Job, "task" | "evaluation">,
  signal: AbortSignal,
): Promise<Readonly<Record<string, number>>> {
  if (heldOut.length === 0) return {};
  if (strategy.declares.personal !== true) {
    const found = await trainer.evaluate(
      { params: state.global(), chain: state.chain, rank: adapter.rank },
      heldOut,
      { batchSize, signal },
    );
    return measurements(found, task, heldOut);
  }
  const all: Record<string, number>[] = [];
  for (const client of clients) {
    const { start, personalBase } = await state.personal(client);
    const model = { params: start.params, chain: state.chain, rank: client.rank, personalBase };
    all.push(measurements(await trainer.evaluate(model, heldOut, { batchSize, signal }), task, heldOut));
  }
  const mean = (name: string): number =>
    all.reduce((sum, one) => sum + (one[name] ?? Number.NaN), 0) / all.length;
  const names = Object.keys(all[0] ?? {}).filter((name) => all.every((one) => one[name] !== undefined));
  return Object.fromEntries(names.map((name) => [name, mean(name)]));
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
    if (cause instanceof RangeError || cause instanceof TypeError) {
      throw new TributaryError("job-invalid", `${path}: ${cause.message}; correct ${path} in the job`, {
        cause,
      });
    }
    throw cause;
  }
}
