import { type Architecture, float, uint } from "./architecture.ts";

const transposed = { kind: "transposed" } as const;

/** GPT-2: learned positions, matrices [in, out] in the checkpoint. */
export const gpt2: Architecture = {
  name: "gpt2",
  modelTypes: ["gpt2"],
  className: "GPT2LMHeadModel",
  prefix: "transformer.",
  trunk: { token_embd: "wte", position_embd: "wpe", output_norm: "ln_f", output: "lm_head" },
  layers: "h",
  layer: {
    attn_norm: "ln_1",
    attn_qkv: "attn.c_attn",
    attn_output: "attn.c_proj",
    ffn_norm: "ln_2",
    ffn_up: "mlp.c_fc",
    ffn_down: "mlp.c_proj",
  },
  changes: {
    attn_qkv: transposed,
    attn_output: transposed,
    ffn_up: transposed,
    ffn_down: transposed,
  },
  config: (stored) => ({
    n_positions: stored.required("context_length"),
    n_embd: stored.required("embedding_length"),
    n_layer: stored.required("block_count"),
    n_head: stored.required("attention.head_count"),
    n_inner: stored.required("feed_forward_length"),
    layer_norm_epsilon: stored.required("attention.layer_norm_epsilon"),
    activation_function: "gelu_new",
    vocab_size: stored.shape("token_embd.weight")[0] ?? 0,
    tie_word_embeddings: true,
  }),
  store(config) {
    config.only("activation_function", "gelu_new");
    config.only("scale_attn_weights", true);
    config.only("scale_attn_by_inverse_layer_idx", false);
    const width = config.number("n_embd");
    return {
      values: new Map([
        ["context_length", uint(config.number("n_positions"))],
        ["embedding_length", uint(width)],
        ["feed_forward_length", uint(config.number("n_inner", 4 * width))],
        ["block_count", uint(config.number("n_layer"))],
        ["attention.head_count", uint(config.number("n_head"))],
        ["attention.layer_norm_epsilon", float(config.number("layer_norm_epsilon", 1e-5))],
      ]),
    };
  },
};
