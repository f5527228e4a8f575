import { add, range, slice } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import {
  additiveMask,
  attention,
  joinHeads,
  type KeyValue,
  type Past,
  pastMask,
  splitHeads,
} from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { layerNorm } from "../nn/norm.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, configReader, numLabels, refuseForeign } from "./config.ts";
import { decoder, decoderHead, headTensors, type LayerOutput } from "./decoder.ts";
import type { Model, ModelConfig, TokenInputs } from "./model.ts";
import { embeddingTensors, layerNormTensors, linearTensors } from "./parameters.ts";

export interface Gpt2Config extends ModelConfig {
  readonly innerSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly activationFunction: string;
  readonly layerNormEpsilon: number;
  readonly tieWordEmbeddings: boolean;
  /** Factor of the scores in each layer. */
  readonly scales: readonly number[];
}

/**
 * GPT-2: learned positions, pre-norm layers, one projection for queries, keys and values; checkpoints hold its matrices
 * as [in, out].
 *
 * Radford et al., 2019.
 */
export const gpt2: Model<Gpt2Config, TokenInputs> = {
  type: "gpt2",
  className: "GPT2",
  tasks: decoder.tasks,
  reads: decoder.reads,
  prefix: "transformer",
  buffers: /\.attn\.(bias|masked_bias)$/,

  config(json) {
    const read = configReader("gpt2", json);
    refuseForeign(read, "activation_function");
    read.only("add_cross_attention", false);
    const hiddenSize = read.number("n_embd", 768);
    const numHiddenLayers = read.number("n_layer", 12);
    const numAttentionHeads = read.number("n_head", 12);
    const scaled = read.boolean("scale_attn_weights", true);
    const perLayer = read.boolean("scale_attn_by_inverse_layer_idx", false);
    const scale = scaled ? Math.sqrt(numAttentionHeads / hiddenSize) : 1;
    const config = {
      hiddenSize,
      vocabSize: read.number("vocab_size", 50257),
      maxPositions: read.number("n_positions", 1024),
      numLabels: numLabels(json),
      initializerRange: read.number("initializer_range", 0.02),
      innerSize: read.number("n_inner", 4 * hiddenSize),
      numHiddenLayers,
      numAttentionHeads,
      activationFunction: read.string("activation_function", "gelu_new"),
      layerNormEpsilon: read.number("layer_norm_epsilon", 1e-5),
      tieWordEmbeddings: read.boolean("tie_word_embeddings", true),
      scales: Array.from({ length: numHiddenLayers }, (_, i) => (perLayer ? scale / (i + 1) : scale)),
    };
    if (hiddenSize % numAttentionHeads !== 0) read.refuse("n_head", `a divisor of n_embd (${hiddenSize})`);
    read.finish();
    return config;
  },

  parameters(config, task) {
    const { hiddenSize: width, innerSize: inner } = config;
    const conv1d = { transposed: true };
    const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => `transformer.h.${i}`);
    return new Map([
      ...embeddingTensors("transformer.wte", config.vocabSize, width),
      ...embeddingTensors("transformer.wpe", config.maxPositions, width),
      ...layers.flatMap((layer) => [
        ...layerNormTensors(`${layer}.ln_1`, width),
        ...linearTensors(`${layer}.attn.c_attn`, 3 * width, width, conv1d),
        ...linearTensors(`${layer}.attn.c_proj`, width, width, conv1d),
        ...layerNormTensors(`${layer}.ln_2`, width),
        ...linearTensors(`${layer}.mlp.c_fc`, inner, width, conv1d),
        ...linearTensors(`${layer}.mlp.c_proj`, width, inner, conv1d),
      ]),
      ...layerNormTensors("transformer.ln_f", width),
      ...headTensors(config, task),
    ]);
  },

  tied: ({ tieWordEmbeddings }) =>
    new Map(tieWordEmbeddings ? [["lm_head.weight", "transformer.wte.weight"]] : []),

  hidden(w, { inputIds, attentionMask, positionIds, segmentIds, cache }, config) {
    const sequence = dimAt(inputIds.shape, 1);
    const mask = additiveMask({ attentionMask, segmentIds, causal: true, sequence });
    const before = cache && positionIds && pastMask(cache, positionIds, undefined);
    const root = w.at("transformer");
    const places = embedding(root.at("wpe"), positionIds ?? range(sequence)); // [B, T, D] or [T, D]
    let x = add(embedding(root.at("wte"), inputIds), places); // [B, T, D]
    const present: KeyValue[] = [];
    config.scales.forEach((scale, i) => {
      const held = cache?.layers[i];
      const past = held && before ? { ...held, mask: before } : undefined;
      const output = block(root.at("h").at(i), x, { mask, past, scale }, config);
      x = output.states;
      present.push(output.present);
    });
    return { states: layerNorm(root.at("ln_f"), x, config.layerNormEpsilon), present };
  },

  head: decoderHead,

  cache: ({ numHiddenLayers, numAttentionHeads, hiddenSize }) => ({
    layers: numHiddenLayers,
    keyValueHeads: numAttentionHeads,
    headDim: hiddenSize / numAttentionHeads,
  }),
};

interface Context {
  readonly mask: Value | undefined;
  readonly past: Past | undefined;
  readonly scale: number;
}

function block(w: Scope, x: Value, context: Context, config: Gpt2Config): LayerOutput {
  const { hiddenSize: width, numAttentionHeads: heads, layerNormEpsilon: epsilon } = config;
  const fused = linear(w.at("attn.c_attn"), layerNorm(w.at("ln_1"), x, epsilon)); // [B, T, 3 D]
  const part = (i: number): Value => splitHeads(slice(fused, 2, i * width, (i + 1) * width), heads);
  const present = { key: part(1), value: part(2) };
  const mixed = joinHeads(attention({ query: part(0), ...present, ...context })); // [B, T, D]
  const attended = add(x, linear(w.at("attn.c_proj"), mixed));
  const inner = linear(w.at("mlp.c_fc"), layerNorm(w.at("ln_2"), attended, epsilon));
  const output = linear(w.at("mlp.c_proj"), activation(config.activationFunction)(inner));
  return { states: add(attended, output), present };
}
