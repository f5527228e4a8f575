import { type Architecture, float, uint } from "./architecture.ts";

/** Values of `pooling_type`. */
const MEAN_POOLING = 1;

/** BERT as an encoder of texts, without pooler and heads. */
export const bert: Architecture = {
  name: "bert",
  modelTypes: ["bert"],
  className: "BertModel",
  prefix: "bert.",
  trunk: {
    token_embd: "embeddings.word_embeddings",
    position_embd: "embeddings.position_embeddings",
    token_types: "embeddings.token_type_embeddings",
    token_embd_norm: "embeddings.LayerNorm",
  },
  layers: "encoder.layer",
  layer: {
    attn_q: "attention.self.query",
    attn_k: "attention.self.key",
    attn_v: "attention.self.value",
    attn_output: "attention.output.dense",
    attn_output_norm: "attention.output.LayerNorm",
    ffn_up: "intermediate.dense",
    ffn_down: "output.dense",
    layer_output_norm: "output.LayerNorm",
  },
  changes: {},
  config: (stored) => ({
    hidden_size: stored.required("embedding_length"),
    intermediate_size: stored.required("feed_forward_length"),
    num_hidden_layers: stored.required("block_count"),
    num_attention_heads: stored.required("attention.head_count"),
    max_position_embeddings: stored.required("context_length"),
    type_vocab_size: stored.shape("token_types.weight")[0] ?? 0,
    vocab_size: stored.shape("token_embd.weight")[0] ?? 0,
    layer_norm_eps: stored.required("attention.layer_norm_epsilon"),
    hidden_act: "gelu",
  }),
  store(config) {
    config.only("hidden_act", "gelu");
    return {
      values: new Map([
        ["context_length", uint(config.number("max_position_embeddings"))],
        ["embedding_length", uint(config.number("hidden_size"))],
        ["feed_forward_length", uint(config.number("intermediate_size"))],
        ["block_count", uint(config.number("num_hidden_layers"))],
        ["attention.head_count", uint(config.number("num_attention_heads"))],
        ["attention.layer_norm_epsilon", float(config.number("layer_norm_eps", 1e-12))],
        ["attention.causal", { type: "bool", value: false }],
        ["pooling_type", uint(MEAN_POOLING)],
      ]),
    };
  },
};
