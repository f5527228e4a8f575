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

const gemmaShape = {
  vocab_size: 31,
  hidden_size: 20,
  intermediate_size: 22,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  max_position_embeddings: 32,
  rope_theta: 100,
  initializer_range: 0.2,
};

const visionShape = {
  hidden_size: 18,
  intermediate_size: 22,
  num_hidden_layers: 2,
  num_attention_heads: 3,
  image_size: [8, 11],
  patch_size: 3,
  num_channels: 2,
};

/** config.json of a small model of each other family, by `model_type`; windows are shorter than the tests' texts. */
export const familyJsons: Readonly<Record<string, Json>> = {
  bert: bertJson,
  deit: {
    ...visionShape,
    architectures: ["DeiTForImageClassification"],
    model_type: "deit",
    num_labels: 3,
    initializer_range: 0.2,
  },
  distilbert: {
    architectures: ["DistilBertForSequenceClassification"],
    model_type: "distilbert",
    vocab_size: 29,
    dim: 18,
    hidden_dim: 22,
    n_layers: 2,
    n_heads: 3,
    max_position_embeddings: 16,
    num_labels: 3,
    initializer_range: 0.2,
  },
  gemma: { ...gemmaShape, architectures: ["GemmaForCausalLM"], model_type: "gemma", num_hidden_layers: 2 },
  gemma2: {
    ...gemmaShape,
    architectures: ["Gemma2ForCausalLM"],
    model_type: "gemma2",
    num_hidden_layers: 2,
    sliding_window: 3,
    attn_logit_softcapping: 2,
    final_logit_softcapping: 4,
    query_pre_attn_scalar: 9,
  },
  gemma3_text: {
    ...gemmaShape,
    architectures: ["Gemma3ForCausalLM"],
    model_type: "gemma3_text",
    num_hidden_layers: 3,
    sliding_window: 3,
    sliding_window_pattern: 2,
    rope_local_base_freq: 20,
    query_pre_attn_scalar: 9,
  },
  gpt2: {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: 31,
    n_embd: 20,
    n_layer: 2,
    n_head: 4,
    n_positions: 32,
    initializer_range: 0.2,
  },
  llama: llamaJson,
  mistral: { ...llamaJson, architectures: ["MistralForCausalLM"], model_type: "mistral", sliding_window: 3 },
  phi3: {
    ...llamaJson,
    architectures: ["Phi3ForCausalLM"],
    model_type: "phi3",
    head_dim: 8,
    sliding_window: 4,
    partial_rotary_factor: 0.5,
  },
  qwen2: {
    ...llamaJson,
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    use_sliding_window: true,
    sliding_window: 3,
    max_window_layers: 1,
  },
  roberta: {
    ...bertJson,
    architectures: ["RobertaForSequenceClassification"],
    model_type: "roberta",
    type_vocab_size: 1,
    pad_token_id: 1,
  },
  siglip: {
    architectures: ["SiglipForImageClassification"],
    model_type: "siglip",
    num_labels: 3,
    vision_config: visionShape,
  },
  vit: {
    ...visionShape,
    architectures: ["ViTForImageClassification"],
    model_type: "vit",
    num_labels: 3,
    initializer_range: 0.2,
  },
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
