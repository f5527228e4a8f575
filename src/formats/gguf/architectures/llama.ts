import type { Architecture } from "./architecture.ts";
import { decoderConfig, decoderLayer, decoderTrunk, decoderValues, onlyFullHeads } from "./decoder.ts";

/** Llama and its like. Mistral is stored under the same name, which knows no window. */
export const llama: Architecture = {
  name: "llama",
  modelTypes: ["llama", "mistral"],
  className: "LlamaForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: { ...decoderLayer, attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm" },
  changes: {
    attn_q: { kind: "rotary-rows", heads: "num_attention_heads" },
    attn_k: { kind: "rotary-rows", heads: "num_key_value_heads" },
  },
  config: (stored) => ({
    ...decoderConfig(stored),
    hidden_act: "silu",
    attention_bias: stored.has("blk.0.attn_q.bias"),
    mlp_bias: stored.has("blk.0.ffn_gate.bias"),
  }),
  store(config) {
    config.only("hidden_act", "silu");
    config.only("partial_rotary_factor", 1);
    const positions = config.number("max_position_embeddings", 2048);
    if (config.has("sliding_window") && config.number("sliding_window") < positions) {
      throw config.refuse(
        "GGUF files of this architecture have no window; sliding_window is below max_position_embeddings",
      );
    }
    return decoderValues(config);
  },
};

/** Qwen2 and 2.5: biases on queries, keys and values; rows as in the checkpoint. */
export const qwen2: Architecture = {
  name: "qwen2",
  modelTypes: ["qwen2"],
  className: "Qwen2ForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: llama.layer,
  changes: {},
  config: (stored) => ({ ...decoderConfig(stored), hidden_act: "silu", use_sliding_window: false }),
  store(config) {
    config.only("hidden_act", "silu");
    config.only("partial_rotary_factor", 1);
    config.only("use_sliding_window", false);
    onlyFullHeads(config);
    return decoderValues(config);
  },
};
