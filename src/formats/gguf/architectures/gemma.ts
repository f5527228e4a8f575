import type { Json, JsonObject } from "../../json.ts";
import { type Architecture, float, type HfConfig, type StoredModel, uint } from "./architecture.ts";
import {
  decoderConfig,
  decoderLayer,
  decoderTrunk,
  decoderValues,
  numberAt,
  objectAt,
  type ropeOf,
  scalingType,
  shapeValues,
  withRope,
} from "./decoder.ts";

const plusOne = { kind: "plus-one" } as const;

function onlyGemma(config: HfConfig): void {
  config.only("hidden_activation", "gelu_pytorch_tanh", null);
  config.only("tie_word_embeddings", true);
  config.only("attention_bias", false);
  config.only("partial_rotary_factor", 1);
}

/** Gemma: norms are stored as 1 + weight, the embedding is the output too. */
export const gemma: Architecture = {
  name: "gemma",
  modelTypes: ["gemma"],
  className: "GemmaForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: { ...decoderLayer, attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm" },
  changes: { attn_norm: plusOne, ffn_norm: plusOne, output_norm: plusOne },
  config: (stored) => ({
    ...decoderConfig(stored),
    hidden_act: "gelu_pytorch_tanh",
    hidden_activation: "gelu_pytorch_tanh",
    attention_bias: false,
  }),
  store(config) {
    onlyGemma(config);
    return decoderValues(config);
  },
};

/** Layers of the 27B models, whose queries alone are scaled by hidden size over heads. */
const layers27B = { gemma2: 46, gemma3: 62 } as const;

/** What queries are scaled by: llama.cpp goes by the number of layers, as GGUF has no place for it. */
function queryScalar(layers: number, { wide, width, headDim }: QueryShape): number {
  return layers === wide ? width : headDim;
}

interface QueryShape {
  /** Layers of the model whose scalar is `width`. */
  readonly wide: number;
  /** Hidden size over heads. */
  readonly width: number;
  readonly headDim: number;
}

function onlyQueryScalar(config: HfConfig, wide: number): void {
  const width = config.number("hidden_size") / config.number("num_attention_heads");
  const shape = { wide, width, headDim: config.number("head_dim", width) };
  const expected = queryScalar(config.number("num_hidden_layers"), shape);
  const got = config.number("query_pre_attn_scalar", 256);
  if (got !== expected) {
    throw config.refuse(`GGUF has no place for query_pre_attn_scalar ${got}; llama.cpp takes ${expected}`);
  }
}

/** What a file of Gemma 2 or 3 tells. */
function gemmaConfig(stored: StoredModel, wide: number): JsonObject & { readonly num_hidden_layers: number } {
  const shared = decoderConfig(stored);
  const layers = stored.required("block_count");
  const width = stored.required("embedding_length") / stored.required("attention.head_count");
  const headDim = stored.number("attention.key_length") ?? width;
  return {
    ...shared,
    num_hidden_layers: layers,
    hidden_act: "gelu_pytorch_tanh",
    hidden_activation: "gelu_pytorch_tanh",
    attention_bias: false,
    query_pre_attn_scalar: queryScalar(layers, { wide, width, headDim }),
  };
}

/** Gemma 2: four norms a layer, two soft caps, a window on every other layer. */
export const gemma2: Architecture = {
  name: "gemma2",
  modelTypes: ["gemma2"],
  className: "Gemma2ForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: {
    ...decoderLayer,
    attn_norm: "input_layernorm",
    post_attention_norm: "post_attention_layernorm",
    ffn_norm: "pre_feedforward_layernorm",
    post_ffw_norm: "post_feedforward_layernorm",
  },
  changes: {
    attn_norm: plusOne,
    post_attention_norm: plusOne,
    ffn_norm: plusOne,
    post_ffw_norm: plusOne,
    output_norm: plusOne,
  },
  config: (stored) => ({
    ...gemmaConfig(stored, layers27B.gemma2),
    sliding_window: stored.required("attention.sliding_window"),
    attn_logit_softcapping: stored.number("attn_logit_softcapping") ?? 50,
    final_logit_softcapping: stored.number("final_logit_softcapping") ?? 30,
  }),
  store(config) {
    onlyGemma(config);
    onlyQueryScalar(config, layers27B.gemma2);
    const { values } = decoderValues(config);
    values
      .set("attention.sliding_window", uint(config.number("sliding_window", 4096)))
      .set("attn_logit_softcapping", float(config.number("attn_logit_softcapping", 50)))
      .set("final_logit_softcapping", float(config.number("final_logit_softcapping", 30)));
    return { values };
  },
};

/** Layers from one that sees everything to the next, and the base of the frequencies of those between. */
const usual = { period: 6, localTheta: 10_000 } as const;

/**
 * Gemma 3, its text part: norms of queries and keys, windows but for every sixth layer. The rotary scaling of a file is that
 * of the layers without a window.
 */
export const gemma3: Architecture = {
  ...gemma2,
  name: "gemma3",
  modelTypes: ["gemma3_text"],
  className: "Gemma3ForCausalLM",
  layer: { ...gemma2.layer, attn_q_norm: "self_attn.q_norm", attn_k_norm: "self_attn.k_norm" },
  changes: { ...gemma2.changes, attn_q_norm: plusOne, attn_k_norm: plusOne },
  config(stored) {
    const shared = gemmaConfig(stored, layers27B.gemma3);
    const { num_hidden_layers: layers } = shared;
    const window = stored.number("attention.sliding_window") ?? 0;
    const period = stored.number("attention.sliding_window_pattern") ?? usual.period;
    return {
      ...shared,
      sliding_window: window === 0 ? null : window,
      layer_types: layerTypes(layers, window === 0 ? 1 : period),
      rope_local_base_freq: stored.number("rope.freq_base_swa") ?? usual.localTheta,
      attn_logit_softcapping: null,
      final_logit_softcapping: stored.number("final_logit_softcapping") ?? null,
    };
  },
  store(config) {
    onlyGemma(config);
    onlyQueryScalar(config, layers27B.gemma3);
    config.only("attn_logit_softcapping", null);
    config.only("use_bidirectional_attention", false);
    const stored = withRope(shapeValues(config), config, gemma3Rope(config));
    const { values } = stored;
    const { period, localTheta } = windowsOf(config);
    if (period > 1) {
      values.set("attention.sliding_window", uint(config.number("sliding_window", 4096)));
      if (period !== usual.period) values.set("attention.sliding_window_pattern", uint(period));
      if (localTheta !== usual.localTheta) values.set("rope.freq_base_swa", float(localTheta));
    }
    if (config.has("final_logit_softcapping"))
      values.set("final_logit_softcapping", float(config.number("final_logit_softcapping")));
    return stored;
  },
};

/** The layers of a model of which every `period`th sees everything. */
function layerTypes(layers: number, period: number): string[] {
  return Array.from({ length: layers }, (_, i) =>
    (i + 1) % period === 0 ? "full_attention" : "sliding_attention",
  );
}

/** What turns the layers without a window. */
function gemma3Rope(config: HfConfig): ReturnType<typeof ropeOf> {
  const full = objectAt(objectAt(config.json, "rope_parameters") ?? {}, "full_attention");
  const rope = {
    theta: numberAt(full ?? {}, "rope_theta") ?? config.number("rope_theta", 1e6),
    scaling: full ?? objectAt(config.json, "rope_scaling") ?? {},
  };
  // The factors of Llama 3 are a tensor that llama.cpp does not read here.
  if (scalingType(rope) === "llama3") throw config.refuse('GGUF holds no rotary scaling "llama3" of Gemma 3');
  return rope;
}

/** Which layers see a window, as GGUF can say it: by a period, 1 where none does. */
function windowsOf(config: HfConfig): { readonly period: number; readonly localTheta: number } {
  const { json } = config;
  const local = objectAt(objectAt(json, "rope_parameters") ?? {}, "sliding_attention");
  if (local && scalingType({ theta: 0, scaling: local }) !== "default")
    throw config.refuse("GGUF holds no rotary scaling of layers with a window");
  const localTheta =
    numberAt(local ?? {}, "rope_theta") ?? config.number("rope_local_base_freq", usual.localTheta);
  const layers = config.number("num_hidden_layers");
  const asked = config.number("sliding_window_pattern", usual.period);
  const types: Json = json.layer_types ?? layerTypes(layers, asked);
  const first = Array.isArray(types) ? types.indexOf("full_attention") : -1;
  const period = [asked, first < 0 ? layers + 1 : first + 1].find(
    (each) => String(layerTypes(layers, each)) === String(types),
  );
  if (period === undefined)
    throw config.refuse("GGUF holds windows of all layers but every so many; layer_types are others");
  if (period > 1 && json.sliding_window === null)
    throw config.refuse(
      "GGUF has no layers that turn as those with a window and have none; sliding_window is null",
    );
  return { period, localTheta };
}
