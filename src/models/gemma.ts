import { add, mul } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { embedding } from "../nn/embedding.ts";
import { gatedMlp } from "../nn/gated-mlp.ts";
import { linear } from "../nn/linear.ts";
import { offsetRmsNorm } from "../nn/norm.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, configReader, refuseForeign } from "./config.ts";
import {
  attendHeads,
  attentionTensors,
  type DecoderConfig,
  type DecoderLayer,
  decoder,
  decoderParameters,
  everyLayer,
  gatedMlpTensors,
  type LayerContext,
  type LayerOutput,
  projectHeads,
  readDecoder,
  runLayers,
} from "./decoder.ts";
import type { Model, TokenInputs } from "./model.ts";
import { offsetRmsNormTensors } from "./parameters.ts";
import { ropeOptions } from "./rope-config.ts";

export interface GemmaConfig extends DecoderConfig {
  readonly hiddenAct: string;
  readonly attentionBias: boolean;
}

/**
 * Gemma: embeddings scaled by sqrt(D), norms with weights around 0, heads of a width of their own, tanh GELU.
 *
 * Gemma Team, 2024. https://arxiv.org/abs/2403.08295
 */
export const gemma: Model<GemmaConfig, TokenInputs> = {
  ...decoder,
  type: "gemma",
  className: "Gemma",

  config(json) {
    const read = configReader("gemma", json);
    refuseForeign(read);
    read.only("use_bidirectional_attention", false);
    const shape = readDecoder(read, json, { rmsNormEps: 1e-6, tieWordEmbeddings: true, headDim: 256 });
    const named = read.string("hidden_act", "gelu_pytorch_tanh");
    const config = {
      ...shape,
      views: everyLayer(shape, { rope: ropeOptions(read, shape) }),
      // The first releases say "gelu" and were trained with its tanh form.
      hiddenAct: named === "gelu" ? "gelu_pytorch_tanh" : named,
      attentionBias: read.boolean("attention_bias", false),
    };
    read.finish();
    return config;
  },

  parameters: (config, task) =>
    decoderParameters(
      config,
      task,
      (layer) => [
        ...offsetRmsNormTensors(`${layer}.input_layernorm`, config.hiddenSize),
        ...attentionTensors(`${layer}.self_attn`, config, { bias: config.attentionBias }),
        ...offsetRmsNormTensors(`${layer}.post_attention_layernorm`, config.hiddenSize),
        ...gatedMlpTensors(`${layer}.mlp`, config),
      ],
      offsetRmsNormTensors,
    ),

  hidden: gemmaHidden(block),
};

/** What the generations of Gemma do around their layers: embeddings as large as the states, and a norm at the end. */
export function gemmaHidden<Config extends DecoderConfig>(
  layer: DecoderLayer<Config>,
): Model<Config, TokenInputs>["hidden"] {
  return (w, inputs, config) => {
    const tokens = embedding(w.at("model.embed_tokens"), inputs.inputIds);
    const embedded = mul(tokens, Math.sqrt(config.hiddenSize)); // [B, T, D]
    const { states, present } = runLayers(w.at("model.layers"), embedded, inputs, config, layer);
    return { states: offsetRmsNorm(w.at("model.norm"), states, config.rmsNormEps), present };
  };
}

function block(w: Scope, x: Value, context: LayerContext, config: GemmaConfig): LayerOutput {
  const self = w.at("self_attn");
  const h = offsetRmsNorm(w.at("input_layernorm"), x, config.rmsNormEps);
  const { mixed, present } = attendHeads(projectHeads(self, h, config), context);
  const attended = add(x, linear(self.at("o_proj"), mixed));
  const normed = offsetRmsNorm(w.at("post_attention_layernorm"), attended, config.rmsNormEps);
  return { states: add(attended, gatedMlp(w.at("mlp"), normed, activation(config.hiddenAct))), present };
}
