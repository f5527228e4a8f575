import { type Architecture, float, type HfConfig, uint } from "./architecture.ts";
import { decoderConfig, decoderLayer, decoderTrunk, decoderValues } from "./decoder.ts";

const plusOne = { kind: "plus-one" } as const;

/** Layers of the one Gemma 2 model, 27B, whose queries are scaled by hidden size over heads. */
const LAYERS_27B = 46;

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
  config(stored) {
    const shared = decoderConfig(stored);
    const width = stored.required("embedding_length") / stored.required("attention.head_count");
    return {
      ...shared,
      hidden_act: "gelu_pytorch_tanh",
      hidden_activation: "gelu_pytorch_tanh",
      attention_bias: false,
      sliding_window: stored.required("attention.sliding_window"),
      attn_logit_softcapping: stored.number("attn_logit_softcapping") ?? 50,
      final_logit_softcapping: stored.number("final_logit_softcapping") ?? 30,
      query_pre_attn_scalar:
        stored.required("block_count") === LAYERS_27B ? width : (shared.head_dim ?? width),
    };
  },
  store(config) {
    onlyGemma(config);
    const { values } = decoderValues(config);
    const heads = config.number("num_attention_heads");
    const width = config.number("hidden_size") / heads;
    const expected =
      config.number("num_hidden_layers") === LAYERS_27B ? width : config.number("head_dim", width);
    if (config.number("query_pre_attn_scalar", 256) !== expected) {
      throw config.refuse(
        `GGUF has no place for query_pre_attn_scalar ${config.number("query_pre_attn_scalar", 256)}; llama.cpp takes ${expected}`,
      );
    }
    values
      .set("attention.sliding_window", uint(config.number("sliding_window", 4096)))
      .set("attn_logit_softcapping", float(config.number("attn_logit_softcapping", 50)))
      .set("final_logit_softcapping", float(config.number("final_logit_softcapping", 30)));
    return { values };
  },
};
