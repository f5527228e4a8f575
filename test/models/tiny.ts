import { bytesSource, type Folder } from "../../src/formats/byte-source.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { describeModel } from "../../src/models/load.ts";
import { randomWeights } from "../../src/models/random-weights.ts";
import type { TaskModel } from "../../src/models/task.ts";
import type { Params } from "../../src/tensor/params.ts";

type Json = Readonly<Record<string, unknown>>;

/** config.json of a small Llama with grouped queries and heads that are not hidden_size / heads wide. */
export const llamaJson: Json = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 31,
  hidden_size: 20,
  intermediate_size: 22,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-5,
  rope_theta: 100,
  initializer_range: 0.2,
};

/** config.json of a small BERT classifier. */
export const bertJson: Json = {
  architectures: ["BertForSequenceClassification"],
  model_type: "bert",
  vocab_size: 29,
  hidden_size: 18,
  intermediate_size: 22,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  max_position_embeddings: 16,
  type_vocab_size: 2,
  num_labels: 3,
  initializer_range: 0.2,
};

/** A described model with random weights. */
export function tinyModel(json: Json): { readonly taskModel: TaskModel; readonly weights: Params } {
  const taskModel = describeModel(json);
  return { taskModel, weights: randomWeights(taskModel, 5) };
}

/** A model folder in memory. */
export function folderOf(json: Json, weights: Params): Folder {
  return new Map([
    ["config.json", bytesSource(new TextEncoder().encode(JSON.stringify(json)))],
    ["model.safetensors", bytesSource(writeSafetensors(weights))],
  ]);
}
