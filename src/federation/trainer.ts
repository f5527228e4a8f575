import type { AttachedAdapter } from "../adapters/adapter.ts";
import { adaptedScope, adapterBase } from "../adapters/adapter.ts";
import { type Batch, batches } from "../data/batches.ts";
import type { Example } from "../data/examples.ts";
import { TributaryError } from "../errors.ts";
import { argMax, cast, equal, reduceSum } from "../graph/ops.ts";
import type { RecomputeLevel } from "../graph/passes/recompute.ts";
import { input, type Value } from "../graph/value.ts";
import { type InputOptions, modelInputs, type TaskModel, taskLoss } from "../models/task.ts";
import type { WeightSpec } from "../nn/scope.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { add, type Params, sortedNames } from "../tensor/params.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { StepRecord } from "../train/local.ts";
import { resumeOptimizer, suspendOptimizer } from "../train/optimizer-state.ts";
import type { Pool } from "../train/pool.node.ts";
import { encode, feedNames, traceStep } from "../train/step.ts";
import type { PoolTask } from "../train/worker-host.ts";
import { applyChanges, type BaseChain, catchUp } from "./base-chain.ts";
import type { ClientTrainer, TrainingResult, TrainingTask, TrainOptions } from "./client.ts";
import type { BaseChange, ClientRef } from "./strategy.ts";
import { type TrainingParts, type TrainingSums, trainInParts } from "./training-parts.ts";

/** How a client trains in a round. */
export interface LocalOptions {
  /** The optimizer of a client in a round. */
  readonly optimizer: (horizon: Horizon) => Optimizer;
  /** Passes over the client's examples, or a number of steps. */
  readonly length: { readonly epochs: number } | { readonly steps: number };
  /** Rows of a batch. */
  readonly batchSize: number;
  /** Batches whose gradients make one step. Default: 1. */
  readonly accumulate?: number;
  /** Largest global gradient norm; 0 leaves gradients as they are. Default: 0. */
  readonly clipNorm?: number;
  /** Batches of like length in random order, or in the order of the data. Default: "bucketed". */
  readonly order?: "bucketed" | "as-given";
  /** What the backward pass computes again instead of keeping it. Default: nothing. */
  readonly recompute?: RecomputeLevel | undefined;
}

/** Where a client's round lies in its training. */
export interface Horizon {
  readonly round: number;
  readonly stepsInRound: number;
}

export interface TrainerOptions {
  readonly model: TaskModel;
  /** The pretrained weights that strategies may change; others need not be there. */
  readonly pretrained: Params;
  /** The adapters of a client of this rank. */
  readonly attach: (rank: number) => readonly AttachedAdapter[];
  /** Training examples of each client. */
  readonly examples: ReadonlyMap<string, readonly Example[]>;
  readonly local: LocalOptions;
  readonly pool: Pool;
  /** Where to keep how far a client has come, so that it goes on after a restart. Default: nowhere. */
  readonly parts?: TrainingParts;
}

/** What an evaluation found. */
export interface Evaluation {
  /** Mean loss over labelled tokens or rows. */
  readonly loss: number;
  /** What it is a mean over. */
  readonly count: number;
  /** Share of labels that are the likeliest class; absent for regression. */
  readonly accuracy?: number;
  /** Likeliest class, or predicted number, of each row; absent for language models. */
  readonly predictions?: readonly number[];
}

export interface EvaluationOptions {
  readonly batchSize: number;
  readonly signal?: AbortSignal;
  /** Called with the share that is done. */
  readonly onProgress?: (done: number) => void;
}

/** Trains and evaluates the clients of one machine on a pool of workers. */
export interface LocalTrainer extends ClientTrainer {
  /** Evaluates parameters on the base of a chain. */
  evaluate(
    model: {
      readonly params: Params;
      readonly chain: BaseChain;
      readonly rank: number;
      readonly personalBase?: readonly BaseChange[];
    },
    examples: readonly Example[],
    options: EvaluationOptions,
  ): Promise<Evaluation>;
  /** The base weights of a chain that differ from the pretrained ones. */
  changedWeights(chain: BaseChain, personal?: readonly BaseChange[]): Params;
}

/** The feeds of a batch, under the names of its graph inputs. */
export function batchFeeds(batch: Batch, task: TaskModel["task"]): Params {
  if (batch.pixelValues !== undefined)
    return new Map<string, Tensor>([
      ["pixel_values", batch.pixelValues],
      ["labels", batch.labels],
    ]);
  const feeds = new Map<string, Tensor>([
    ["input_ids", batch.inputIds],
    ["attention_mask", batch.attentionMask],
    ["labels", batch.labels],
  ]);
  if (task === "causal-lm") feeds.set("label_positions", batch.labelPositions);
  if (batch.tokenTypeIds) feeds.set("token_type_ids", batch.tokenTypeIds);
  if (batch.segmentIds) feeds.set("segment_ids", batch.segmentIds);
  if (batch.positionIds) feeds.set("position_ids", batch.positionIds);
  return feeds;
}

/** Makes the trainer of one machine. Batches are drawn from streams keyed by (seed, round, client). */
export function localTrainer({
  model,
  pretrained,
  attach,
  examples,
  local,
  pool,
  parts,
}: TrainerOptions): LocalTrainer {
  const base = adapterBase(model);
  const registered = new Set<string>();
  const segments = [...examples.values()].some((rows) =>
    rows.some(({ tokenTypeIds }) => tokenTypeIds !== undefined),
  );
  const optional =
    segments && model.model.reads.includes("token_type_ids") ? (["token_type_ids"] as const) : [];
  // What is trained may share rows; what is evaluated never does.
  const shared = [...examples.values()].some((rows) => rows.some(({ segments: own }) => own !== undefined))
    ? (["segment_ids", "position_ids"] as const)
    : [];
  let held = { version: "", changed: [] as readonly string[] };
  let offset: { readonly version: string; readonly values: Params } | undefined;

  /** Loss and named inputs of the model with the adapters of a rank; `params` may hold more than they start with. */
  const trace = (rank: number, params: Params, inputs: InputOptions["optional"] = optional) => {
    const scope = adaptedScope(base, attach(rank), specs(params));
    const loss = taskLoss(
      model,
      scope,
      modelInputs(model.model, { optional: inputs, image: model.config.image }),
    );
    return { scope, loss };
  };

  /** The offset of a version, from that of the version before where it is known: rounds change the base one by one. */
  const offsetAt = (chain: BaseChain): Params => {
    const before = offset ?? { version: chain.root, values: new Map() };
    if (before.version === chain.version) return before.values;
    const { from, changes } = catchUp(chain, before.version);
    offset = {
      version: chain.version,
      values: applyChanges(from === "held" ? before.values : new Map(), changes),
    };
    return offset.values;
  };

  const changedWeights = (chain: BaseChain, personal: readonly BaseChange[] = []): Params => {
    const changed = applyChanges(offsetAt(chain), personal);
    return new Map(
      [...changed].map(([name, difference]) => [name, sum(pristine(name), difference)] as const),
    );
  };

  const pristine = (name: string): Tensor => {
    const found = pretrained.get(name);
    if (!found)
      throw new TributaryError(
        "missing-weight",
        `trainer: a base change names "${name}", which is not a pretrained weight`,
      );
    return found;
  };

  /** Brings the workers' base to a version; a weight that is back at the pretrained value is restored. */
  const synchronize = (chain: BaseChain): void => {
    if (
      chain.version === held.version ||
      (held.version === "" && chain.links.length === 0 && !chain.snapshot)
    )
      return;
    const changed = changedWeights(chain);
    const restored = held.changed
      .filter((name) => !changed.has(name))
      .map((name) => [name, pristine(name)] as const);
    pool.setWeights(new Map([...restored, ...changed]));
    held = { version: chain.version, changed: [...changed.keys()] };
  };

  async function train(task: TrainingTask, options: TrainOptions): Promise<TrainingResult> {
    const { assignment, half, chain } = task;
    const { client, round, ref, context } = assignment;
    const rows = examples.get(client) ?? [];
    if (rows.length === 0) {
      throw new TributaryError(
        "empty-silo",
        `client ${client} has no examples; give it data, or leave it out of the run`,
      );
    }
    synchronize(chain);
    const groups = stepBatches(rows, model, local, { seed: context.seed, round, client });
    const optimizer = local.optimizer({ round, stepsInRound: groups.length });
    const phases = half.rule.phases ?? 1;
    const personal = half.personalBase.length > 0 ? changedWeights(chain, half.personalBase) : new Map();
    let params = half.start.params;
    const memory = half.rule.optimizerState ?? "fresh";
    let optimizerState: Params = memory === "fresh" ? new Map() : (task.optimizer ?? new Map());
    let stepsInRun = 0;
    let learningRate = Number.NaN;
    let [lossSum, normSum, labels] = [0, 0, 0];
    const kept = await parts?.load(assignment.id);
    if (kept) {
      ({ optimizerState } = kept);
      // In the order of the start: sums over all parameters round by it.
      params = new Map([...params].map(([name, value]) => [name, kept.params.get(name) ?? value] as const));
      ({ loss: lossSum, norm: normSum, labels } = kept.sums);
    }
    for (let phase = kept?.phase ?? 0; phase < phases; phase++) {
      const trainable = new Map([...params].filter(([name]) => half.rule.trainable?.(name, phase) ?? true));
      if (trainable.size === 0)
        throw new RangeError(
          `client ${client}: the rule of the strategy trains none of ${params.size} parameters`,
        );
      const graphs = register(task, ref, phase, trainable, optimizer);
      const resumed = resumeOptimizer(optimizer, specs(trainable), optimizerState);
      const { stepsBefore } = resumed;
      stepsInRun = resumed.stepsInRun;
      learningRate = optimizer.scalars(stepsBefore + 1).learningRate ?? Number.NaN;
      const before = params;
      const earlier = optimizerState;
      const going = kept?.phase === phase ? kept : undefined;
      const count = (records: readonly StepRecord[], sums: TrainingSums): TrainingSums =>
        records.reduce(
          ({ loss, norm, labels: n }, step) => ({
            loss: loss + step.loss,
            norm: norm + step.norm,
            labels: n + step.count,
          }),
          sums,
        );
      const begun = { loss: lossSum, norm: normSum, labels };
      const outcome = await trainInParts<PoolTask>(
        pool.train,
        {
          graphs,
          start: trainable,
          optimizerState: going?.phaseState ?? resumed.state,
          feeds: taskFeeds(task, params, trainable, personal),
          steps: groups,
          scalars: groups.map((_, i) => optimizer.scalars(stepsBefore + i + 1)),
          ...(optimizer.projection && {
            refresh: {
              ...optimizer.projection,
              stepsBefore: stepsInRun,
              key: { seed: context.seed, round, client },
            },
          }),
        },
        {
          from: going?.step ?? 0,
          everyMs: parts?.everyMs ?? Number.POSITIVE_INFINITY,
          env: parts?.env ?? { monotonic: () => 0 },
          signal: options.signal,
          onStep: (record) =>
            options.onProgress({
              step: phase * groups.length + record.step,
              steps: phases * groups.length,
              loss: record.loss,
            }),
          keep: async (done, part) =>
            parts?.save({
              assignment: assignment.id,
              phase,
              step: done,
              params: new Map([...before, ...part.params]),
              optimizerState: earlier,
              phaseState: part.optimizerState,
              sums: count(part.steps, begun),
            }),
        },
      );
      params = new Map([...params, ...outcome.params]);
      optimizerState = new Map([...optimizerState, ...outcome.optimizerState]);
      ({ loss: lossSum, norm: normSum, labels } = count(outcome.steps, begun));
    }
    const steps = phases * groups.length;
    return {
      params,
      optimizer: suspendOptimizer(optimizerState, stepsInRun + groups.length, memory),
      numExamples: rows.length,
      steps,
      learningRate,
      loss: lossSum / steps,
      metrics: { gradientNorm: normSum / steps, labels, steps },
    };
  }

  /** Registers the graphs of a rule, a rank and a phase with the workers, once. */
  function register(
    task: TrainingTask,
    ref: ClientRef,
    phase: number,
    trainable: Params,
    optimizer: Optimizer,
  ): string {
    const { half } = task;
    const { params } = half.start;
    const stage = task.payload.stage ?? "";
    const key = JSON.stringify(["train", stage, ref.rank, phase, optimizer.name, layoutOf(params)]);
    if (registered.has(key)) return key;
    const { scope, loss } = trace(ref.rank, params, [...optional, ...shared]);
    // In order of name: the graph, and so its rounding, is the same for parameters from memory and from the store.
    const values = new Map(sortedNames(trainable).map((name) => [name, scope.get(name)] as const));
    pool.register(
      key,
      traceStep({
        loss,
        trainable: values,
        optimizer,
        clipNorm: local.clipNorm ?? 0,
        rule: half.rule,
        recompute: local.recompute,
        extra: specs(half.start.extra),
        memory: specs(half.local.memory),
      }),
    );
    registered.add(key);
    return key;
  }

  /** Feeds beside the batches: frozen parameters, the personal base, and what the rule reads. */
  function taskFeeds({ half }: TrainingTask, params: Params, trainable: Params, personal: Params): Params {
    const feeds = new Map<string, Tensor>(personal);
    for (const [name, value] of params) if (!trainable.has(name)) feeds.set(name, value);
    if (half.rule.penalty)
      for (const [name, value] of half.start.params) feeds.set(feedNames.received(name), value);
    if (half.rule.correct) {
      for (const [name, value] of half.start.extra) feeds.set(feedNames.extra(name), value);
      for (const [name, value] of half.local.memory) feeds.set(feedNames.memory(name), value);
    }
    return feeds;
  }

  const evaluate: LocalTrainer["evaluate"] = async (
    { params, chain, rank, personalBase = [] },
    rows,
    { batchSize, signal, onProgress },
  ) => {
    synchronize(chain);
    const key = JSON.stringify(["evaluate", rank, layoutOf(params)]);
    if (!registered.has(key)) {
      pool.register(key, encode(evaluationOutputs(model, trace(rank, params).loss)));
      registered.add(key);
    }
    const feeds = new Map([
      ...(personalBase.length > 0 ? changedWeights(chain, personalBase) : []),
      ...params,
    ]);
    const planned = evaluationBatches(rows, model, batchSize);
    const share = Math.max(1, Math.ceil(planned.length / (4 * pool.plan.workers)));
    const chunks = Array.from({ length: Math.ceil(planned.length / share) }, (_, i) =>
      planned.slice(i * share, (i + 1) * share),
    );
    let done = 0;
    const outputs = await Promise.all(
      chunks.map(async (chunk) => {
        const found = await pool.forward(
          { graph: key, feeds, batches: chunk.map(({ feeds: batch }) => batch) },
          { signal },
        );
        done += chunk.length;
        onProgress?.(done / planned.length);
        return found;
      }),
    );
    return summary(model, outputs.flat(), planned, rows.length);
  };

  return { train, evaluate, changedWeights };
}

const specs = (params: Params): ReadonlyMap<string, WeightSpec> => params;

/** Names and shapes, which decide the graph. */
const layoutOf = (params: Params): readonly string[] =>
  sortedNames(params).map((name) => `${name} ${params.get(name)?.shape.join("x")}`);

function sum(weight: Tensor, difference: Tensor): Tensor {
  const name = "weight";
  const total = add(new Map([[name, weight]]), new Map([[name, difference]])).get(name);
  if (!total) throw new Error("trainer: a sum without a result");
  return total;
}

/** The batches of each step of a client's round. */
function stepBatches(
  rows: readonly Example[],
  model: TaskModel,
  { length, batchSize, accumulate = 1, order = "bucketed" }: LocalOptions,
  key: { readonly seed: number; readonly round: number; readonly client: string },
): Params[][] {
  const regression = model.task === "regression";
  const wanted = "steps" in length ? length.steps : Number.POSITIVE_INFINITY;
  const epochs = "epochs" in length ? length.epochs : Number.POSITIVE_INFINITY;
  const steps: Params[][] = [];
  for (let epoch = 0; epoch < epochs && steps.length < wanted; epoch++) {
    const shuffle = { seed: key.seed, round: key.round, client: `${key.client}/${epoch}` };
    let group: Params[] = [];
    for (const batch of batches(rows, {
      batchSize,
      regression,
      ...(order === "bucketed" ? { shuffle } : {}),
    })) {
      group.push(batchFeeds(batch, model.task));
      if (group.length < accumulate) continue;
      steps.push(group);
      group = [];
      if (steps.length === wanted) return steps;
    }
    // What is left of an epoch is a smaller step: no example is passed over.
    if (group.length > 0) steps.push(group);
  }
  return steps.slice(0, Math.min(wanted, steps.length));
}

interface PlannedBatch {
  readonly feeds: Params;
  /** Which rows it holds. */
  readonly rows: readonly number[];
}

/** Batches of like length, longest first, so that little is padded; nothing is drawn. */
function evaluationBatches(rows: readonly Example[], model: TaskModel, batchSize: number): PlannedBatch[] {
  const order = rows
    .map((_, i) => i)
    .sort((a, b) => (rows[b]?.inputIds.length ?? 0) - (rows[a]?.inputIds.length ?? 0) || a - b);
  const planned: PlannedBatch[] = [];
  for (let i = 0; i < order.length; i += batchSize) {
    const chosen = order.slice(i, i + batchSize);
    const [batch] = batches(
      chosen.flatMap((row) => rows[row] ?? []),
      { batchSize, regression: model.task === "regression" },
    );
    if (batch) planned.push({ feeds: batchFeeds(batch, model.task), rows: chosen });
  }
  return planned;
}

/** Sums over a batch: the loss, what it runs over, right answers; and the predictions of rows. */
function evaluationOutputs(
  { task, config }: TaskModel,
  loss: ReturnType<typeof taskLoss>,
): Map<string, Value> {
  const outputs = new Map<string, Value>([
    ["loss", loss.sum],
    ["count", loss.count],
  ]);
  if (task === "regression") {
    if (config.numLabels === 1) outputs.set("predictions", loss.output);
    return outputs;
  }
  if (task === "embeddings") return outputs;
  const likeliest = argMax(loss.output, -1);
  const rows = task === "causal-lm" ? "labels" : "batch";
  outputs.set("correct", reduceSum(cast(equal(likeliest, input("labels", "int64", [rows])), "float32")));
  if (task !== "causal-lm") outputs.set("predictions", cast(likeliest, "float32"));
  return outputs;
}

function summary(
  { task }: TaskModel,
  outputs: readonly Params[],
  planned: readonly PlannedBatch[],
  rows: number,
): Evaluation {
  const total = (name: string): number =>
    outputs.reduce((sum, batch) => sum + Number(batch.get(name)?.data[0] ?? Number.NaN), 0);
  const count = total("count");
  const loss = total("loss") / count;
  if (!Number.isFinite(loss)) {
    throw new TributaryError(
      "loss-not-finite",
      `evaluation: the loss is ${loss} over ${count} labels; the parameters are broken`,
    );
  }
  const labelled = task !== "regression" && task !== "embeddings";
  const predictions = outputs[0]?.has("predictions") ? new Array<number>(rows).fill(Number.NaN) : undefined;
  if (predictions) {
    planned.forEach((batch, i) => {
      const values = outputs[i]?.get("predictions")?.data ?? [];
      batch.rows.forEach((row, j) => {
        predictions[row] = Number(values[j]);
      });
    });
  }
  return {
    loss,
    count,
    ...(labelled ? { accuracy: total("correct") / count } : {}),
    ...(predictions ? { predictions } : {}),
  };
}
