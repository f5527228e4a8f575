import { add, concat, expand } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import { attention, joinHeads, splitHeads } from "../nn/attention.ts";
import { linear } from "../nn/linear.ts";
import { layerNorm } from "../nn/norm.ts";
import { patchEmbedding } from "../nn/patches.ts";
import { firstState } from "../nn/pooling.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, configReader, numLabels, refuseForeign } from "./config.ts";
import { type PatchConfig, readPatches } from "./image-config.ts";
import type { ImageInputs, Model, ModelConfig } from "./model.ts";
import { layerNormTensors, linearTensors, patchTensors, type Tensors, tokenTensors } from "./parameters.ts";

export interface VitConfig extends ModelConfig, PatchConfig {
  readonly image: PatchConfig["image"];
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly hiddenAct: string;
  readonly layerNormEps: number;
  readonly qkvBias: boolean;
}

/** ViT: patches and a class token, pre-norm encoder. Dosovitskiy et al., ICLR 2021. https://arxiv.org/abs/2010.11929 */
export const vit: Model<VitConfig, ImageInputs> = vitFamily({
  type: "vit",
  className: "ViT",
  tokens: ["cls_token"],
});

/** What tells relatives of ViT apart. */
export interface VitTraits {
  /** `model_type`, and the prefix of the trunk. */
  readonly type: string;
  readonly className: string;
  /** Learned tokens before the patches; the head reads the first. */
  readonly tokens: readonly string[];
}

/** A family of ViT's shape. */
export function vitFamily({ type, className, tokens }: VitTraits): Model<VitConfig, ImageInputs> {
  return {
    type,
    className,
    tasks: ["image-classification"],
    reads: ["pixel_values"],
    prefix: type,
    buffers: /^$/,
    loadedName,

    config(json) {
      const read = configReader(type, json);
      refuseForeign(read);
      const patches = readPatches(read);
      const config = {
        ...patches,
        hiddenSize: read.number("hidden_size", 768),
        vocabSize: 0,
        maxPositions: patches.patches + tokens.length,
        numLabels: numLabels(json),
        initializerRange: read.number("initializer_range", 0.02),
        intermediateSize: read.number("intermediate_size", 3072),
        numHiddenLayers: read.number("num_hidden_layers", 12),
        numAttentionHeads: read.number("num_attention_heads", 12),
        hiddenAct: read.string("hidden_act", "gelu"),
        layerNormEps: read.number("layer_norm_eps", 1e-12),
        qkvBias: read.boolean("qkv_bias", true),
      };
      if (config.hiddenSize % config.numAttentionHeads !== 0) {
        read.refuse("num_attention_heads", `a divisor of hidden_size (${config.hiddenSize})`);
      }
      read.finish();
      return config;
    },

    parameters(config, task) {
      const width = config.hiddenSize;
      const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => `${type}.encoder.layer.${i}`);
      const head = { head: true, fresh: true };
      return new Map([
        ...tokens.flatMap((token) => tokenTensors(`${type}.embeddings.${token}`, 1, width)),
        ...tokenTensors(`${type}.embeddings.position_embeddings`, config.maxPositions, width),
        ...patchTensors(`${type}.embeddings.patch_embeddings.projection`, config, width),
        ...layers.flatMap((layer) => layerTensors(layer, config)),
        ...layerNormTensors(`${type}.layernorm`, width),
        ...(task === "image-classification"
          ? linearTensors("classifier", config.numLabels, width, head)
          : []),
      ]);
    },

    tied: () => new Map(),

    hidden(root, { pixelValues }, config) {
      const w = root.at(type);
      const patches = patchEmbedding(w.at("embeddings.patch_embeddings.projection"), pixelValues);
      const shape = [dimAt(pixelValues.shape, 0), 1, config.hiddenSize];
      const first = tokens.map((token) => expand(w.at("embeddings").get(token), shape));
      let x = add(concat([...first, patches], 1), w.at("embeddings").get("position_embeddings")); // [B, T, D]
      for (let i = 0; i < config.numHiddenLayers; i++) x = block(w.at(`encoder.layer.${i}`), x, config);
      return { states: layerNorm(w.at("layernorm"), x, config.layerNormEps), present: [] };
    },

    head: (w, states) => linear(w.at("classifier"), firstState(states)), // [B, labels]
  };
}

function layerTensors(layer: string, config: VitConfig): Tensors {
  const { hiddenSize: width, intermediateSize: inner, qkvBias: bias } = config;
  return [
    ...layerNormTensors(`${layer}.layernorm_before`, width),
    ...linearTensors(`${layer}.attention.attention.query`, width, width, { bias }),
    ...linearTensors(`${layer}.attention.attention.key`, width, width, { bias }),
    ...linearTensors(`${layer}.attention.attention.value`, width, width, { bias }),
    ...linearTensors(`${layer}.attention.output.dense`, width, width),
    ...layerNormTensors(`${layer}.layernorm_after`, width),
    ...linearTensors(`${layer}.intermediate.dense`, inner, width),
    ...linearTensors(`${layer}.output.dense`, width, inner),
  ];
}

/** Modules of a layer in Transformers 5, by what checkpoints call them. */
const loadedModules: Readonly<Record<string, string>> = {
  "attention.attention.query": "attention.q_proj",
  "attention.attention.key": "attention.k_proj",
  "attention.attention.value": "attention.v_proj",
  "attention.output.dense": "attention.o_proj",
  "intermediate.dense": "mlp.fc1",
  "output.dense": "mlp.fc2",
};

function loadedName(name: string): string {
  const [, family, layer, module = "", part] =
    /^(\w+)\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (family === undefined) return name;
  return `${family}.layers.${layer}.${loadedModules[module] ?? module}.${part}`;
}

function block(w: Scope, x: Value, config: VitConfig): Value {
  const self = w.at("attention.attention");
  const normed = layerNorm(w.at("layernorm_before"), x, config.layerNormEps);
  const heads = (name: string): Value => splitHeads(linear(self.at(name), normed), config.numAttentionHeads);
  const mixed = joinHeads(attention({ query: heads("query"), key: heads("key"), value: heads("value") }));
  const attended = add(linear(w.at("attention.output.dense"), mixed), x);
  const h = layerNorm(w.at("layernorm_after"), attended, config.layerNormEps); // [B, T, D]
  const inner = activation(config.hiddenAct)(linear(w.at("intermediate.dense"), h));
  return add(linear(w.at("output.dense"), inner), attended);
}
