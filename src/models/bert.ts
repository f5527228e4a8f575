import { add, cast, dimSize, div, mul, range, reduceSum, reshape, slice, tanh } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import { constant, type Value } from "../graph/value.ts";
import { additiveMask, attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { unitRows } from "../nn/losses.ts";
import { layerNorm } from "../nn/norm.ts";
import type { Scope } from "../nn/scope.ts";
import { tensor } from "../tensor/tensor.ts";
import { activation, activationNames, configReader, numLabels } from "./config.ts";
import type { Model, ModelConfig, ModelInputs, ModelParameter, Task } from "./model.ts";

export interface BertConfig extends ModelConfig {
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
  readonly typeVocabSize: number;
}

/** The trunk's scope: alone in an embedding model, under `bert` beside a head. */
const trunk = (task: Task): string => (task === "embeddings" ? "" : "bert.");

/**
 * BERT: learned positions and segments, post-norm encoder; sentence embeddings are the mean over tokens divided by its
 * length, as in sentence-transformers.
 *
 * Devlin et al., NAACL 2019. https://arxiv.org/abs/1810.04805; Reimers & Gurevych, EMNLP 2019.
 * https://arxiv.org/abs/1908.10084
 */
export const bert: Model<BertConfig> = {
  type: "bert",
  tasks: ["embeddings", "sequence-classification", "regression"],
  reads: ["token_type_ids", "position_ids"],
  prefix: "bert",
  buffers: /embeddings\.position_ids$/,

  config(json) {
    const read = configReader("bert", json);
    read.only("position_embedding_type", "absolute");
    read.only("is_decoder", false);
    read.only("add_cross_attention", false);
    read.only("hidden_act", ...activationNames);
    if (read.has("quantization_config")) read.refuse("quantization_config", "no quantization");
    const config: BertConfig = {
      hiddenSize: read.number("hidden_size", 768),
      vocabSize: read.number("vocab_size", 30522),
      maxPositions: read.number("max_position_embeddings", 512),
      numLabels: numLabels(json),
      initializerRange: read.number("initializer_range", 0.02),
      intermediateSize: read.number("intermediate_size", 3072),
      numHiddenLayers: read.number("num_hidden_layers", 12),
      numAttentionHeads: read.number("num_attention_heads", 12),
      hiddenAct: read.string("hidden_act", "gelu"),
      layerNormEps: read.number("layer_norm_eps", 1e-12),
      typeVocabSize: read.number("type_vocab_size", 2),
    };
    if (config.hiddenSize % config.numAttentionHeads !== 0) {
      read.refuse("num_attention_heads", `a divisor of hidden_size (${config.hiddenSize})`);
    }
    read.finish();
    return config;
  },

  parameters(config, task) {
    const { hiddenSize: width, intermediateSize: inner } = config;
    const at = trunk(task);
    const found = new Map<string, ModelParameter>();
    const table = (name: string, rows: number): Map<string, ModelParameter> =>
      found.set(`${at}embeddings.${name}.weight`, { shape: [rows, width], kind: "embedding" });
    const dense = (
      name: string,
      out: number,
      from: number,
      part: { head?: boolean; fresh?: boolean } = {},
    ): void => {
      found.set(`${name}.weight`, { shape: [out, from], kind: "linear", ...part });
      found.set(`${name}.bias`, { shape: [out], kind: "bias", ...part });
    };
    const norm = (name: string): void => {
      found.set(`${at}${name}.weight`, { shape: [width], kind: "norm-weight" });
      found.set(`${at}${name}.bias`, { shape: [width], kind: "norm-bias" });
    };
    table("word_embeddings", config.vocabSize);
    table("position_embeddings", config.maxPositions);
    table("token_type_embeddings", config.typeVocabSize);
    norm("embeddings.LayerNorm");
    for (let i = 0; i < config.numHiddenLayers; i++) {
      const layer = `encoder.layer.${i}`;
      for (const part of ["query", "key", "value"])
        dense(`${at}${layer}.attention.self.${part}`, width, width);
      dense(`${at}${layer}.attention.output.dense`, width, width);
      norm(`${layer}.attention.output.LayerNorm`);
      dense(`${at}${layer}.intermediate.dense`, inner, width);
      dense(`${at}${layer}.output.dense`, width, inner);
      norm(`${layer}.output.LayerNorm`);
    }
    if (task !== "embeddings") {
      dense("bert.pooler.dense", width, width, { fresh: true });
      dense("classifier", config.numLabels, width, { head: true, fresh: true });
    }
    return found;
  },

  tied: () => new Map(),

  hidden(root, inputs, config, task) {
    const w = task === "embeddings" ? root : root.at("bert");
    const mask = additiveMask({
      attentionMask: inputs.attentionMask,
      causal: false,
      sequence: dimAt(inputs.inputIds.shape, 1),
    });
    let x = embeddings(w.at("embeddings"), inputs, config); // [B, T, D]
    for (let i = 0; i < config.numHiddenLayers; i++) x = block(w.at(`encoder.layer.${i}`), x, mask, config);
    return { states: x, present: [] };
  },

  head(w, states, inputs, _config, task) {
    if (task === "embeddings") return unitRows(meanOverTokens(states, inputs)); // [B, D]
    const [batch, , width] = states.shape;
    if (batch === undefined || width === undefined)
      throw new RangeError(`bert: got states [${states.shape}]`);
    const row = reshape(slice(states, 1, 0, 1), [batch, width]); // [B, D]
    return linear(w.at("classifier"), tanh(linear(w.at("bert.pooler.dense"), row))); // [B, labels]
  },
};

function embeddings(
  w: Scope,
  { inputIds, positionIds, tokenTypeIds }: ModelInputs,
  config: BertConfig,
): Value {
  const segments = tokenTypeIds ?? constant(tensor("int64", [1], new BigInt64Array(1)));
  const words = embedding(w.at("word_embeddings"), inputIds); // [B, T, D]
  const positions = embedding(w.at("position_embeddings"), positionIds ?? range(dimAt(inputIds.shape, 1))); // [T, D]
  const types = embedding(w.at("token_type_embeddings"), segments); // [B, T, D] or [1, D]
  return layerNorm(w.at("LayerNorm"), add(add(words, types), positions), config.layerNormEps);
}

function block(w: Scope, x: Value, mask: Value | undefined, config: BertConfig): Value {
  const self = w.at("attention.self");
  const heads = (name: string): Value => splitHeads(linear(self.at(name), x), config.numAttentionHeads);
  const mixed = joinHeads(
    attention({ query: heads("query"), key: heads("key"), value: heads("value"), mask }),
  );
  const attended = add(linear(w.at("attention.output.dense"), mixed), x);
  const h = layerNorm(w.at("attention.output.LayerNorm"), attended, config.layerNormEps); // [B, T, D]
  const inner = activation(config.hiddenAct)(linear(w.at("intermediate.dense"), h));
  return layerNorm(
    w.at("output.LayerNorm"),
    add(linear(w.at("output.dense"), inner), h),
    config.layerNormEps,
  );
}

/** The mean of the states of each row over its tokens, [B, D]. */
function meanOverTokens(states: Value, { attentionMask }: ModelInputs): Value {
  const [batch, sequence] = [dimAt(states.shape, 0), dimAt(states.shape, 1)];
  const tokens = attentionMask ? cast(attentionMask, "float32") : undefined;
  const weights = tokens ? reshape(tokens, [batch, sequence, 1]) : undefined;
  const sum = reduceSum(weights ? mul(states, weights) : states, { axes: [1] });
  const count = tokens
    ? reduceSum(tokens, { axes: [1], keepDims: true })
    : cast(dimSize(sequence), "float32");
  return div(sum, count);
}
