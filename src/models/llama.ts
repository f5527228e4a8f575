import { add, dimSize, flattenRows, gather, mul, range, reduceMax, sub } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import { constant, type Value } from "../graph/value.ts";
import { additiveMask, attention, extend, joinHeads, type KeyValue, splitHeads } from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { rmsNorm } from "../nn/norm.ts";
import { type RopeScaling, type RopeTables, rope, ropeTables } from "../nn/rope.ts";
import type { Scope } from "../nn/scope.ts";
import { tensor } from "../tensor/tensor.ts";
import { activation, activationNames, type ConfigReader, configReader, numLabels } from "./config.ts";
import type { Model, ModelConfig, ModelInputs, ModelParameter, PastTokens } from "./model.ts";

export interface LlamaConfig extends ModelConfig {
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly hiddenAct: string;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  readonly tieWordEmbeddings: boolean;
}

/** Positions in the rotary tables of a graph; longer contexts than this are not addressed. */
const TABLE_POSITIONS = 8192;

/**
 * Llama 2 and 3.x: rotary positions, grouped-query attention, gated MLP, RMS norms.
 *
 * Touvron et al., 2023. https://arxiv.org/abs/2307.09288; Grattafiori et al., 2024. https://arxiv.org/abs/2407.21783
 */
export const llama: Model<LlamaConfig> = {
  type: "llama",
  tasks: ["causal-lm", "sequence-classification", "regression"],
  reads: ["position_ids"],
  prefix: "model",
  buffers: /rotary_emb\.inv_freq$/,

  config(json) {
    const read = configReader("llama", json);
    read.only("pretraining_tp", 1);
    read.only("rope_interleaved", false);
    read.only("partial_rotary_factor", 1);
    read.only("hidden_act", ...activationNames);
    if (read.has("quantization_config")) read.refuse("quantization_config", "no quantization");
    const hiddenSize = read.number("hidden_size");
    const numAttentionHeads = read.number("num_attention_heads");
    const maxPositions = read.number("max_position_embeddings", 2048);
    const rope = read.object("rope_parameters");
    const scaling = rope ?? read.object("rope_scaling");
    const config: LlamaConfig = {
      hiddenSize,
      vocabSize: read.number("vocab_size"),
      maxPositions: Math.min(maxPositions, TABLE_POSITIONS),
      numLabels: numLabels(json),
      initializerRange: read.number("initializer_range", 0.02),
      intermediateSize: read.number("intermediate_size"),
      numHiddenLayers: read.number("num_hidden_layers"),
      numAttentionHeads,
      numKeyValueHeads: read.number("num_key_value_heads", numAttentionHeads),
      headDim: read.number("head_dim", hiddenSize / numAttentionHeads),
      hiddenAct: read.string("hidden_act", "silu"),
      rmsNormEps: read.number("rms_norm_eps", 1e-6),
      ropeTheta: rope?.has("rope_theta") ? rope.number("rope_theta") : read.number("rope_theta", 10000),
      ropeScaling: ropeScaling(scaling),
      attentionBias: read.boolean("attention_bias", false),
      mlpBias: read.boolean("mlp_bias", false),
      tieWordEmbeddings: read.boolean("tie_word_embeddings", false),
    };
    if (numAttentionHeads % config.numKeyValueHeads !== 0) {
      read.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numAttentionHeads})`);
    }
    if (config.headDim % 2 !== 0) read.refuse("head_dim", "an even number");
    read.finish();
    return config;
  },

  parameters(config, task) {
    const { hiddenSize: width, intermediateSize: inner, headDim } = config;
    const queries = config.numAttentionHeads * headDim;
    const keys = config.numKeyValueHeads * headDim;
    const found = new Map<string, ModelParameter>();
    const dense = (name: string, out: number, from: number, bias: boolean): void => {
      found.set(`${name}.weight`, { shape: [out, from], kind: "linear" });
      if (bias) found.set(`${name}.bias`, { shape: [out], kind: "bias" });
    };
    const norm = (name: string): Map<string, ModelParameter> =>
      found.set(`${name}.weight`, { shape: [width], kind: "norm-weight" });
    found.set("model.embed_tokens.weight", { shape: [config.vocabSize, width], kind: "embedding" });
    for (let i = 0; i < config.numHiddenLayers; i++) {
      const layer = `model.layers.${i}`;
      norm(`${layer}.input_layernorm`);
      dense(`${layer}.self_attn.q_proj`, queries, width, config.attentionBias);
      dense(`${layer}.self_attn.k_proj`, keys, width, config.attentionBias);
      dense(`${layer}.self_attn.v_proj`, keys, width, config.attentionBias);
      dense(`${layer}.self_attn.o_proj`, width, queries, config.attentionBias);
      norm(`${layer}.post_attention_layernorm`);
      dense(`${layer}.mlp.gate_proj`, inner, width, config.mlpBias);
      dense(`${layer}.mlp.up_proj`, inner, width, config.mlpBias);
      dense(`${layer}.mlp.down_proj`, width, inner, config.mlpBias);
    }
    norm("model.norm");
    if (task !== "causal-lm") {
      found.set("score.weight", {
        shape: [config.numLabels, width],
        kind: "linear",
        head: true,
        fresh: true,
      });
    } else if (!config.tieWordEmbeddings) {
      found.set("lm_head.weight", { shape: [config.vocabSize, width], kind: "linear", head: true });
    }
    return found;
  },

  tied: (config) =>
    new Map(config.tieWordEmbeddings ? [["lm_head.weight", "model.embed_tokens.weight"]] : []),

  hidden(w, inputs, config) {
    const { inputIds, attentionMask, cache } = inputs;
    const positions = inputs.positionIds ?? constant(tensor("int64", [1], new BigInt64Array(1)));
    const tables = ropeTables({
      headDim: config.headDim,
      theta: config.ropeTheta,
      maxPositions: config.maxPositions,
      scaling: config.ropeScaling,
    });
    const mask = additiveMask({ attentionMask, causal: true, sequence: dimAt(inputIds.shape, 1), ...cache });
    const present: KeyValue[] = [];
    let x = embedding(w.at("model.embed_tokens"), inputIds); // [B, T, D]
    for (let i = 0; i < config.numHiddenLayers; i++) {
      const layer = w.at(`model.layers.${i}`);
      const h = rmsNorm(layer.at("input_layernorm"), x, config.rmsNormEps);
      const attended = selfAttention(
        layer.at("self_attn"),
        h,
        { mask, positions, tables, cache, index: i },
        config,
      );
      present.push(attended.present);
      x = add(x, attended.output);
      x = add(
        x,
        mlp(layer.at("mlp"), rmsNorm(layer.at("post_attention_layernorm"), x, config.rmsNormEps), config),
      );
    }
    return { states: rmsNorm(w.at("model.norm"), x, config.rmsNormEps), present };
  },

  head(w, states, inputs, _config, task) {
    if (task === "causal-lm") return linear(w.at("lm_head"), states); // [..., V]
    return linear(w.at("score"), lastToken(states, inputs)); // [B, labels]
  },

  cache: ({ numHiddenLayers, numKeyValueHeads, headDim }) => ({
    layers: numHiddenLayers,
    keyValueHeads: numKeyValueHeads,
    headDim,
  }),
};

interface Context {
  readonly mask: Value | undefined;
  readonly positions: Value;
  readonly tables: RopeTables;
  readonly cache: PastTokens | undefined;
  /** Number of the layer. */
  readonly index: number;
}

function selfAttention(
  w: Scope,
  x: Value,
  { mask, positions, tables, cache, index }: Context,
  config: LlamaConfig,
): { readonly output: Value; readonly present: KeyValue } {
  const query = rope(splitHeads(linear(w.at("q_proj"), x), config.numAttentionHeads), positions, tables); // [B, H, T, d]
  const key = rope(splitHeads(linear(w.at("k_proj"), x), config.numKeyValueHeads), positions, tables); // [B, Hkv, T, d]
  const value = splitHeads(linear(w.at("v_proj"), x), config.numKeyValueHeads);
  const past = cache?.layers[index];
  const present = cache && past ? extend(past, { key, value }, cache.total) : { key, value }; // [B, Hkv, S, d]
  const mixed = attention({ query, ...present, mask });
  return { output: linear(w.at("o_proj"), joinHeads(mixed)), present };
}

function mlp(w: Scope, x: Value, config: LlamaConfig): Value {
  const gate = activation(config.hiddenAct)(linear(w.at("gate_proj"), x));
  return linear(w.at("down_proj"), mul(gate, linear(w.at("up_proj"), x)));
}

/** The states of the last token of each row that is not padding, [B, D]. */
function lastToken(states: Value, { attentionMask }: ModelInputs): Value {
  const [batch, sequence] = [dimAt(states.shape, 0), dimAt(states.shape, 1)];
  const rows = mul(range(batch), dimSize(sequence)); // first row of each sequence in [B * T]
  const last = attentionMask
    ? reduceMax(mul(attentionMask, range(sequence)), { axes: [1] })
    : sub(dimSize(sequence), 1);
  return gather(flattenRows(states), add(rows, last));
}

function ropeScaling(read: ConfigReader | undefined): RopeScaling {
  const type = read?.string("rope_type", read.string("type", "default")) ?? "default";
  if (!read || type === "default") return { type: "default" };
  read.only("partial_rotary_factor", 1);
  if (type === "linear") return { type, factor: read.number("factor") };
  if (type === "llama3") {
    return {
      type,
      factor: read.number("factor"),
      lowFreqFactor: read.number("low_freq_factor"),
      highFreqFactor: read.number("high_freq_factor"),
      originalMaxPositionEmbeddings: read.number("original_max_position_embeddings"),
    };
  }
  read.refuse(read.has("rope_type") ? "rope_type" : "type", '"default", "linear" or "llama3"');
  return { type: "default" };
}
