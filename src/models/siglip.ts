import { add } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { linear } from "../nn/linear.ts";
import { layerNorm } from "../nn/norm.ts";
import { patchEmbedding } from "../nn/patches.ts";
import { meanState } from "../nn/pooling.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, configReader, numLabels, refuseForeign } from "./config.ts";
import { type PatchConfig, readPatches } from "./image-config.ts";
import type { ImageInputs, Model, ModelConfig } from "./model.ts";
import { embeddingTensors, layerNormTensors, linearTensors, patchTensors } from "./parameters.ts";

export interface SiglipConfig extends ModelConfig, PatchConfig {
  readonly image: PatchConfig["image"];
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
}

/**
 * SigLIP, its vision tower: pre-norm encoder over patches; a class is read from their mean. Text tower and
 * attention-pooling head of a checkpoint are not used.
 *
 * Zhai et al., ICCV 2023. https://arxiv.org/abs/2303.15343
 */
export const siglip: Model<SiglipConfig, ImageInputs> = {
  type: "siglip",
  className: "Siglip",
  tasks: ["image-classification"],
  reads: ["pixel_values"],
  prefix: "vision_model",
  buffers: /embeddings\.position_ids$/,

  config(json) {
    const whole = configReader("siglip", json);
    const read = whole.object("vision_config") ?? configReader("siglip", {});
    refuseForeign(read);
    const patches = readPatches(read);
    const hiddenSize = read.number("hidden_size", 768);
    const config = {
      ...patches,
      hiddenSize,
      vocabSize: 0,
      maxPositions: patches.patches,
      numLabels: numLabels(json),
      initializerRange: whole.number("initializer_factor", 1) / Math.sqrt(hiddenSize),
      intermediateSize: read.number("intermediate_size", 3072),
      numHiddenLayers: read.number("num_hidden_layers", 12),
      numAttentionHeads: read.number("num_attention_heads", 12),
      hiddenAct: read.string("hidden_act", "gelu_pytorch_tanh"),
      layerNormEps: read.number("layer_norm_eps", 1e-6),
    };
    if (hiddenSize % config.numAttentionHeads !== 0) {
      read.refuse("num_attention_heads", `a divisor of hidden_size (${hiddenSize})`);
    }
    if (whole.has("quantization_config")) whole.refuse("quantization_config", "no quantization");
    whole.finish();
    return config;
  },

  parameters(config) {
    const { hiddenSize: width, intermediateSize: inner } = config;
    const layers = Array.from(
      { length: config.numHiddenLayers },
      (_, i) => `vision_model.encoder.layers.${i}`,
    );
    return new Map([
      ...patchTensors("vision_model.embeddings.patch_embedding", config, width),
      ...embeddingTensors("vision_model.embeddings.position_embedding", config.patches, width),
      ...layers.flatMap((layer) => [
        ...layerNormTensors(`${layer}.layer_norm1`, width),
        ...["q_proj", "k_proj", "v_proj", "out_proj"].flatMap((name) =>
          linearTensors(`${layer}.self_attn.${name}`, width, width),
        ),
        ...layerNormTensors(`${layer}.layer_norm2`, width),
        ...linearTensors(`${layer}.mlp.fc1`, inner, width),
        ...linearTensors(`${layer}.mlp.fc2`, width, inner),
      ]),
      ...layerNormTensors("vision_model.post_layernorm", width),
      ...linearTensors("classifier", config.numLabels, width, { head: true, fresh: true }),
    ]);
  },

  tied: () => new Map(),

  hidden(root, { pixelValues }, config) {
    const w = root.at("vision_model");
    const patches = patchEmbedding(w.at("embeddings.patch_embedding"), pixelValues);
    let x = add(patches, w.at("embeddings.position_embedding").get("weight")); // [B, T, D]
    for (let i = 0; i < config.numHiddenLayers; i++) x = block(w.at(`encoder.layers.${i}`), x, config);
    return { states: layerNorm(w.at("post_layernorm"), x, config.layerNormEps), present: [] };
  },

  head: (w, states) => linear(w.at("classifier"), meanState(states)), // [B, labels]
};

function block(w: Scope, x: Value, config: SiglipConfig): Value {
  const self = w.at("self_attn");
  const normed = layerNorm(w.at("layer_norm1"), x, config.layerNormEps);
  const heads = (name: string): Value => splitHeads(linear(self.at(name), normed), config.numAttentionHeads);
  const mixed = joinHeads(
    attention({ query: heads("q_proj"), key: heads("k_proj"), value: heads("v_proj") }),
  );
  const attended = add(x, linear(self.at("out_proj"), mixed));
  const h = layerNorm(w.at("layer_norm2"), attended, config.layerNormEps); // [B, T, D]
  return add(attended, linear(w.at("mlp.fc2"), activation(config.hiddenAct)(linear(w.at("mlp.fc1"), h))));
}
