import { add } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { embedding } from "../nn/embedding.ts";
import { gatedMlp } from "../nn/gated-mlp.ts";
import { linear } from "../nn/linear.ts";
import { rmsNorm } from "../nn/norm.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, configReader, refuseForeign } from "./config.ts";
import {
  attendHeads,
  attentionTensors,
  type DecoderConfig,
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
import { rmsNormTensors } from "./parameters.ts";
import { ropeOptions } from "./rope-config.ts";

export interface LlamaConfig extends DecoderConfig {
  readonly hiddenAct: string;
  /** Whether queries, keys and values have biases. */
  readonly attentionBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
}

/**
 * Llama 2 and 3.x: rotary positions, grouped-query attention, gated MLP, RMS norms.
 *
 * Touvron et al., 2023. https://arxiv.org/abs/2307.09288; Grattafiori et al., 2024. https://arxiv.org/abs/2407.21783
 */
export const llama: Model<LlamaConfig, TokenInputs> = {
  ...decoder,
  type: "llama",
  className: "Llama",

  config(json) {
    const read = configReader("llama", json);
    refuseForeign(read);
    read.only("pretraining_tp", 1);
    read.only("rope_interleaved", false);
    const shape = readDecoder(read, json, { rmsNormEps: 1e-6, tieWordEmbeddings: false });
    const attentionBias = read.boolean("attention_bias", false);
    const config = {
      ...shape,
      views: everyLayer(shape, { rope: ropeOptions(read, shape) }),
      hiddenAct: read.string("hidden_act", "silu"),
      attentionBias,
      outputBias: attentionBias,
      mlpBias: read.boolean("mlp_bias", false),
    };
    read.finish();
    return config;
  },

  parameters: (config, task) =>
    decoderParameters(
      config,
      task,
      (layer) => [
        ...rmsNormTensors(`${layer}.input_layernorm`, config.hiddenSize),
        ...attentionTensors(`${layer}.self_attn`, config, {
          bias: config.attentionBias,
          outputBias: config.outputBias,
        }),
        ...rmsNormTensors(`${layer}.post_attention_layernorm`, config.hiddenSize),
        ...gatedMlpTensors(`${layer}.mlp`, config, { bias: config.mlpBias }),
      ],
      rmsNormTensors,
    ),

  hidden(w, inputs, config) {
    const embedded = embedding(w.at("model.embed_tokens"), inputs.inputIds); // [B, T, D]
    const { states, present } = runLayers(w.at("model.layers"), embedded, inputs, config, block);
    return { states: rmsNorm(w.at("model.norm"), states, config.rmsNormEps), present };
  },
};

function block(w: Scope, x: Value, context: LayerContext, config: LlamaConfig): LayerOutput {
  const self = w.at("self_attn");
  const h = rmsNorm(w.at("input_layernorm"), x, config.rmsNormEps);
  const { mixed, present } = attendHeads(projectHeads(self, h, config), context);
  const attended = add(x, linear(self.at("o_proj"), mixed));
  const normed = rmsNorm(w.at("post_attention_layernorm"), attended, config.rmsNormEps);
  return { states: add(attended, gatedMlp(w.at("mlp"), normed, activation(config.hiddenAct))), present };
}
