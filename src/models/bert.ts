import { add, range, tanh } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import { constant, type Value } from "../graph/value.ts";
import { additiveMask, attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { unitRows } from "../nn/losses.ts";
import { layerNorm } from "../nn/norm.ts";
import { firstState, meanState } from "../nn/pooling.ts";
import type { Scope } from "../nn/scope.ts";
import { tensor } from "../tensor/tensor.ts";
import { activation, type ConfigReader, configReader, numLabels, refuseForeign } from "./config.ts";
import type { Model, ModelConfig, Task, TokenInputs } from "./model.ts";
import { embeddingTensors, layerNormTensors, linearTensors, type Tensors } from "./parameters.ts";

export interface BertConfig extends ModelConfig {
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
  readonly typeVocabSize: number;
}

/**
 * BERT: learned positions and segments, post-norm encoder; sentence embeddings are the mean over tokens divided by its
 * length, as in sentence-transformers.
 *
 * Devlin et al., NAACL 2019. https://arxiv.org/abs/1810.04805; Reimers & Gurevych, EMNLP 2019.
 * https://arxiv.org/abs/1908.10084
 */
export const bert: Model<BertConfig, TokenInputs> = {
  type: "bert",
  className: "Bert",
  tasks: ["embeddings", "sequence-classification", "regression"],
  reads: ["input_ids", "attention_mask", "token_type_ids", "position_ids"],
  prefix: "bert",
  buffers: /embeddings\.position_ids$/,

  config(json) {
    const read = configReader("bert", json);
    const config = readBert(read, json);
    read.finish();
    return config;
  },

  parameters(config, task) {
    const width = config.hiddenSize;
    const trunk = bertTensors(trunkPath("bert", task), config, config.maxPositions);
    if (task === "embeddings") return new Map(trunk);
    return new Map([
      ...trunk,
      ...linearTensors("bert.pooler.dense", width, width, { fresh: true }),
      ...linearTensors("classifier", config.numLabels, width, { head: true, fresh: true }),
    ]);
  },

  tied: () => new Map(),

  hidden(root, inputs, config, task) {
    const w = root.at(trunkPath("bert", task));
    const positions = inputs.positionIds ?? range(dimAt(inputs.inputIds.shape, 1));
    return { states: bertStates(w, inputs, positions, config), present: [] };
  },

  head(w, states, { attentionMask }, _config, task) {
    if (task === "embeddings") return unitRows(meanState(states, attentionMask)); // [B, D]
    return linear(w.at("classifier"), tanh(linear(w.at("bert.pooler.dense"), firstState(states)))); // [B, labels]
  },
};

/** The path of the trunk: alone in an embedding model, under the family's name beside a head. */
export function trunkPath(family: string, task: Task): string {
  return task === "embeddings" ? "" : family;
}

/** What BERT and RoBERTa spell alike. */
export function readBert(read: ConfigReader, json: Readonly<Record<string, unknown>>): BertConfig {
  refuseForeign(read);
  read.only("position_embedding_type", "absolute");
  read.only("is_decoder", false);
  read.only("add_cross_attention", false);
  const config = {
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
  return config;
}

/** The tensors of the trunk, whose table of positions has `positionRows` rows. */
export function bertTensors(path: string, config: BertConfig, positionRows: number): Tensors {
  const { hiddenSize: width, intermediateSize: inner } = config;
  const at = (name: string): string => (path === "" ? name : `${path}.${name}`);
  const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => at(`encoder.layer.${i}`));
  return [
    ...embeddingTensors(at("embeddings.word_embeddings"), config.vocabSize, width),
    ...embeddingTensors(at("embeddings.position_embeddings"), positionRows, width),
    ...embeddingTensors(at("embeddings.token_type_embeddings"), config.typeVocabSize, width),
    ...layerNormTensors(at("embeddings.LayerNorm"), width),
    ...layers.flatMap((layer) => [
      ...linearTensors(`${layer}.attention.self.query`, width, width),
      ...linearTensors(`${layer}.attention.self.key`, width, width),
      ...linearTensors(`${layer}.attention.self.value`, width, width),
      ...linearTensors(`${layer}.attention.output.dense`, width, width),
      ...layerNormTensors(`${layer}.attention.output.LayerNorm`, width),
      ...linearTensors(`${layer}.intermediate.dense`, inner, width),
      ...linearTensors(`${layer}.output.dense`, width, inner),
      ...layerNormTensors(`${layer}.output.LayerNorm`, width),
    ]),
  ];
}

/** The trunk: embeddings of words, positions [B, T] or [T], and segments, then the layers. */
export function bertStates(w: Scope, inputs: TokenInputs, positions: Value, config: BertConfig): Value {
  const { inputIds, attentionMask } = inputs;
  const mask = additiveMask({ attentionMask, causal: false, sequence: dimAt(inputIds.shape, 1) });
  let x = embeddings(w.at("embeddings"), inputs, positions, config); // [B, T, D]
  for (let i = 0; i < config.numHiddenLayers; i++) x = block(w.at(`encoder.layer.${i}`), x, mask, config);
  return x;
}

function embeddings(
  w: Scope,
  { inputIds, tokenTypeIds }: TokenInputs,
  positions: Value,
  config: BertConfig,
): Value {
  const segments = tokenTypeIds ?? constant(tensor("int64", [1], new BigInt64Array(1)));
  const words = embedding(w.at("word_embeddings"), inputIds); // [B, T, D]
  const places = embedding(w.at("position_embeddings"), positions); // [B, T, D] or [T, D]
  const types = embedding(w.at("token_type_embeddings"), segments); // [B, T, D] or [1, D]
  return layerNorm(w.at("LayerNorm"), add(add(words, types), places), config.layerNormEps);
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
