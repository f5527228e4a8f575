import { type AttachedAdapter, adaptedScope, adapterBase, trainableNames } from "../adapters/adapter.ts";
import { widenLate } from "../graph/passes/held-weights.ts";
import { simplify } from "../graph/passes/simplify.ts";
import { weightBytes } from "../models/precision.ts";
import { modelInputs, type TaskModel, taskLoss } from "../models/task.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { byteSize } from "../tensor/dtype.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { type StepOptions, stepOutputs } from "../train/step.ts";
import { type Lengths, peakActivations } from "./activations.ts";

/** The largest batch that goes through a model. */
export interface BatchShape {
  readonly rows: number;
  /** Tokens of a row; 0 for images. */
  readonly length: number;
  /** Labelled tokens of the batch, or its rows. */
  readonly labels: number;
}

export interface TrainingMemoryOptions {
  readonly model: TaskModel;
  readonly attached: readonly AttachedAdapter[];
  readonly optimizer: Optimizer;
  readonly batch: BatchShape;
  readonly clipNorm?: number;
  readonly recompute?: StepOptions["recompute"];
  /** The largest batch of evaluations; absent where nothing is evaluated. */
  readonly evaluated?: BatchShape;
}

/** Bytes that training takes in one worker, by what they are for. */
export interface TrainingMemory {
  /** The base, as it is held. */
  readonly weights: number;
  /** What is trained or fed beside the base. */
  readonly adapter: number;
  readonly optimizer: number;
  /** The most that intermediate values take at a time, in a step or in an evaluation. */
  readonly activations: number;
  /** JavaScript, and what ONNX Runtime keeps of compiled graphs. */
  readonly runtime: number;
  readonly total: number;
}

/**
 * What a worker takes without a model, measured on Linux: its JavaScript, the code of ONNX Runtime and compiled graphs of a
 * model of twenty to thirty layers.
 */
const RUNTIME = 250e6;

/** What the process takes that the workers belong to. */
export const PROGRAM_BYTES = 200e6;

/** The memory that training needs, from the traced step; no weight is read for it. */
export function trainingMemory({
  model,
  attached,
  optimizer,
  batch,
  clipNorm = 0,
  recompute,
  evaluated,
}: TrainingMemoryOptions): TrainingMemory {
  const scope = adaptedScope(adapterBase(model), attached);
  const loss = taskLoss(model, scope, modelInputs(model.model, { image: model.config.image }));
  const trainable = new Map(trainableNames(attached).map((name) => [name, scope.get(name)] as const));
  const step = stepOutputs({ loss, trainable, optimizer, clipNorm, recompute });
  const ofStep = peakActivations([...step.values()], lengthsOf(batch));
  const ofEvaluation = evaluated
    ? peakActivations(widenLate(simplify([loss.sum, loss.count, loss.output])), lengthsOf(evaluated))
    : 0;
  const weights = weightBytes(model);
  const adapter = attached
    .flatMap(({ parameters }) => [...parameters.values()])
    .reduce((sum, { shape }) => sum + sizeOf(shape) * byteSize("float32"), 0);
  const state = [...trainable].reduce(
    (sum, [name, { shape, dtype }]) =>
      sum +
      Object.values(optimizer.state(shape.map(Number), name)).reduce(
        (bytes, spec) => bytes + sizeOf(spec.shape) * byteSize(dtype),
        0,
      ),
    0,
  );
  const activations = Math.max(ofStep, ofEvaluation);
  const total = weights + adapter + state + activations + RUNTIME;
  return { weights, adapter, optimizer: state, activations, runtime: RUNTIME, total };
}

function lengthsOf({ rows, length, labels }: BatchShape): Lengths {
  return new Map([
    ["batch", rows],
    ["sequence", length],
    ["labels", labels],
    ["pairs", Math.floor(rows / 2)],
  ]);
}
