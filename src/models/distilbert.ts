import { add, range, relu } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import { additiveMask, attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { unitRows } from "../nn/losses.ts";
import { layerNorm } from "../nn/norm.ts";
import { firstState, meanState } from "../nn/pooling.ts";
import type { Scope } from "../nn/scope.ts";
import { bert, trunkPath } from "./bert.ts";
import { activation, configReader, numLabels, refuseForeign } from "./config.ts";
import type { Model, ModelConfig, TokenInputs } from "./model.ts";
import { embeddingTensors, layerNormTensors, linearTensors } from "./parameters.ts";

export interface DistilBertConfig extends ModelConfig {
  readonly innerSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly activation: string;
}

/** Of every norm, whatever config.json says. */
const EPSILON = 1e-12;

/** DistilBERT: half of BERT's layers, no segments, names of its own. Sanh et al., 2019. https://arxiv.org/abs/1910.01108 */
export const distilbert: Model<DistilBertConfig, TokenInputs> = {
  type: "distilbert",
  className: "DistilBert",
  tasks: ["embeddings", "sequence-classification", "regression"],
  reads: ["input_ids", "attention_mask", "position_ids"],
  prefix: "distilbert",
  buffers: bert.buffers,

  config(json) {
    const read = configReader("distilbert", json);
    refuseForeign(read, "activation");
    read.only("sinusoidal_pos_embds", false);
    const config = {
      hiddenSize: read.number("dim", 768),
      vocabSize: read.number("vocab_size", 30522),
      maxPositions: read.number("max_position_embeddings", 512),
      numLabels: numLabels(json),
      initializerRange: read.number("initializer_range", 0.02),
      innerSize: read.number("hidden_dim", 3072),
      numHiddenLayers: read.number("n_layers", 6),
      numAttentionHeads: read.number("n_heads", 12),
      activation: read.string("activation", "gelu"),
    };
    if (config.hiddenSize % config.numAttentionHeads !== 0) {
      read.refuse("n_heads", `a divisor of dim (${config.hiddenSize})`);
    }
    read.finish();
    return config;
  },

  parameters(config, task) {
    const { hiddenSize: width, innerSize: inner } = config;
    const path = trunkPath("distilbert", task);
    const at = (name: string): string => (path === "" ? name : `${path}.${name}`);
    const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => at(`transformer.layer.${i}`));
    const head = { head: true, fresh: true };
    return new Map([
      ...embeddingTensors(at("embeddings.word_embeddings"), config.vocabSize, width),
      ...embeddingTensors(at("embeddings.position_embeddings"), config.maxPositions, width),
      ...layerNormTensors(at("embeddings.LayerNorm"), width),
      ...layers.flatMap((layer) => [
        ...["q_lin", "k_lin", "v_lin", "out_lin"].flatMap((name) =>
          linearTensors(`${layer}.attention.${name}`, width, width),
        ),
        ...layerNormTensors(`${layer}.sa_layer_norm`, width),
        ...linearTensors(`${layer}.ffn.lin1`, inner, width),
        ...linearTensors(`${layer}.ffn.lin2`, width, inner),
        ...layerNormTensors(`${layer}.output_layer_norm`, width),
      ]),
      ...(task === "embeddings"
        ? []
        : [
            ...linearTensors("pre_classifier", width, width, head),
            ...linearTensors("classifier", config.numLabels, width, head),
          ]),
    ]);
  },

  tied: () => new Map(),

  hidden(root, { inputIds, attentionMask, positionIds }, config, task) {
    const w = root.at(trunkPath("distilbert", task));
    const sequence = dimAt(inputIds.shape, 1);
    const mask = additiveMask({ attentionMask, causal: false, sequence });
    const words = embedding(w.at("embeddings.word_embeddings"), inputIds); // [B, T, D]
    const places = embedding(w.at("embeddings.position_embeddings"), positionIds ?? range(sequence));
    let x = layerNorm(w.at("embeddings.LayerNorm"), add(words, places), EPSILON);
    for (let i = 0; i < config.numHiddenLayers; i++)
      x = block(w.at(`transformer.layer.${i}`), x, mask, config);
    return { states: x, present: [] };
  },

  head(w, states, { attentionMask }, _config, task) {
    if (task === "embeddings") return unitRows(meanState(states, attentionMask)); // [B, D]
    return linear(w.at("classifier"), relu(linear(w.at("pre_classifier"), firstState(states)))); // [B, labels]
  },
};

function block(w: Scope, x: Value, mask: Value | undefined, config: DistilBertConfig): Value {
  const heads = (name: string): Value =>
    splitHeads(linear(w.at("attention").at(name), x), config.numAttentionHeads);
  const mixed = joinHeads(
    attention({ query: heads("q_lin"), key: heads("k_lin"), value: heads("v_lin"), mask }),
  );
  const h = layerNorm(w.at("sa_layer_norm"), add(linear(w.at("attention.out_lin"), mixed), x), EPSILON);
  const inner = activation(config.activation)(linear(w.at("ffn.lin1"), h));
  return layerNorm(w.at("output_layer_norm"), add(linear(w.at("ffn.lin2"), inner), h), EPSILON);
}
