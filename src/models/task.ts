import { add, flattenRows, gather, mul, range, reduceSum, reshape } from "../graph/ops.ts";
import { input, type Value } from "../graph/value.ts";
import { crossEntropy, type Loss, squaredError } from "../nn/losses.ts";
import type { Scope, WeightSpec } from "../nn/scope.ts";
import type { ImageSize, InputName, Model, ModelConfig, ModelInputs, Task } from "./model.ts";

/** A model of one configuration, for one task. */
export interface TaskModel {
  readonly model: Model;
  readonly config: ModelConfig;
  readonly task: Task;
  /** How the base tensors are held that are not held as float32. Default: none. */
  readonly held?: ReadonlyMap<string, WeightSpec>;
}

/** Names of the feeds of a batch. */
export type BatchField = InputName | "label_positions" | "labels";

export interface InputOptions {
  /** Optional inputs to make; those that the family does not read are refused. */
  readonly optional?: readonly ("token_type_ids" | "position_ids" | "segment_ids")[];
  /** `config.image`, needed where the family reads images. */
  readonly image?: ImageSize | undefined;
}

/**
 * The graph inputs of a batch, named as in Transformers: tokens int64 [batch, sequence], or images float32
 * [batch, channels, height, width].
 */
export function modelInputs(model: Model, { optional = [], image }: InputOptions = {}): ModelInputs {
  const tokens = (name: BatchField): Value => input(name, "int64", ["batch", "sequence"]);
  for (const name of optional) {
    if (!model.reads.includes(name)) throw new RangeError(`${model.type}: the family has no input "${name}"`);
  }
  if (model.reads.includes("pixel_values")) {
    if (!image)
      throw new RangeError(`${model.type}: reads images; give modelInputs their size, config.image`);
    const shape = ["batch", image.channels, image.height, image.width];
    return { pixelValues: input("pixel_values", "float32", shape) };
  }
  return {
    inputIds: tokens("input_ids"),
    attentionMask: tokens("attention_mask"),
    ...(optional.includes("token_type_ids") ? { tokenTypeIds: tokens("token_type_ids") } : {}),
    ...(optional.includes("position_ids") ? { positionIds: tokens("position_ids") } : {}),
    ...(optional.includes("segment_ids") ? { segmentIds: tokens("segment_ids") } : {}),
  };
}

/** The last hidden states [B, T, D] and what the task reads from them: logits, predictions or unit vectors. */
export function taskOutput(
  { model, config, task }: TaskModel,
  w: Scope,
  inputs: ModelInputs,
): { readonly states: Value; readonly output: Value } {
  const { states } = model.hidden(w, inputs, config, task);
  return { states, output: model.head(w, states, inputs, config, task) };
}

/** The loss of a batch, and the outputs that it was computed from: one row a label. */
export interface TaskLoss extends Loss {
  readonly output: Value;
}

/**
 * The loss of a labelled batch. Beside the inputs it reads
 * - causal-lm: `label_positions` int64 [labels], rows of [batch * sequence] whose next token is labelled, and `labels`
 *   int64 [labels], those tokens: cross-entropy;
 * - sequence-classification and image-classification: `labels` int64 [batch]: cross-entropy;
 * - regression: `labels` float32 [batch], or [batch, numLabels] where there are several: squared error;
 * - embeddings: `labels` float32 [pairs]: squared error of the cosine of rows (0, 1), (2, 3), ...
 */
export function taskLoss({ model, config, task }: TaskModel, w: Scope, inputs: ModelInputs): TaskLoss {
  const { states } = model.hidden(w, inputs, config, task);
  if (task === "causal-lm") {
    const rows = gather(flattenRows(states), input("label_positions", "int64", ["labels"]));
    const logits = model.head(w, rows, inputs, config, task); // [L, V]
    return { ...crossEntropy(logits, input("labels", "int64", ["labels"])), output: logits };
  }
  const output = model.head(w, states, inputs, config, task);
  switch (task) {
    case "sequence-classification":
    case "image-classification":
      return { ...crossEntropy(output, input("labels", "int64", ["batch"])), output };
    case "regression": {
      const predictions = config.numLabels === 1 ? reshape(output, ["batch"]) : output;
      return {
        ...squaredError(predictions, input("labels", "float32", predictions.shape)),
        output: predictions,
      };
    }
    case "embeddings": {
      const first = mul(range("pairs"), 2);
      const cosine = reduceSum(mul(gather(output, first), gather(output, add(first, 1))), { axes: [-1] });
      return { ...squaredError(cosine, input("labels", "float32", ["pairs"])), output };
    }
  }
}
