import { type Architecture, uint } from "./architecture.ts";
import { decoderConfig, decoderTrunk, decoderValues, onlyFullHeads } from "./decoder.ts";

/** Phi-3: queries, keys and values in one matrix, and so gate and up. */
export const phi3: Architecture = {
  name: "phi3",
  modelTypes: ["phi3"],
  className: "Phi3ForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: {
    attn_qkv: "self_attn.qkv_proj",
    attn_output: "self_attn.o_proj",
    ffn_up: "mlp.gate_up_proj",
    ffn_down: "mlp.down_proj",
    attn_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
  },
  changes: {},
  config(stored) {
    if (stored.has("rope_factors_long.weight") || stored.has("rope_factors_short.weight")) {
      throw stored.refuse('has the rotary scaling "longrope", supported are "none" and "linear"');
    }
    const shared = decoderConfig(stored);
    const window = stored.number("attention.sliding_window") ?? 0;
    return {
      ...shared,
      hidden_act: "silu",
      original_max_position_embeddings:
        stored.number("rope.scaling.original_context_length") ?? shared.max_position_embeddings ?? null,
      sliding_window: window === 0 ? null : window,
    };
  },
  store(config) {
    config.only("hidden_act", "silu");
    onlyFullHeads(config);
    const { values } = decoderValues(config);
    const positions = config.number("max_position_embeddings");
    values.set(
      "rope.scaling.original_context_length",
      uint(config.number("original_max_position_embeddings", positions)),
    );
    if (config.has("sliding_window")) {
      values.set("attention.sliding_window", uint(config.number("sliding_window")));
    }
    return { values };
  },
};
