import type { Value } from "../graph/value.ts";
import { linear } from "../nn/linear.ts";
import { offsetRmsNorm } from "../nn/norm.ts";
import type { RopeOptions } from "../nn/rope.ts";
import type { Scope } from "../nn/scope.ts";
import { type ConfigReader, configReader } from "./config.ts";
import {
  attendHeads,
  attentionTensors,
  decoderParameters,
  gatedMlpTensors,
  type LayerContext,
  type LayerOutput,
  projectHeads,
  windowedLayers,
} from "./decoder.ts";
import { gemmaHidden } from "./gemma.ts";
import { type Gemma2Config, gemma2, readGemma, sandwich, sandwichTensors } from "./gemma2.ts";
import type { Model, TokenInputs } from "./model.ts";
import { offsetRmsNormTensors } from "./parameters.ts";
import { ropeScaling } from "./rope-config.ts";

/**
 * Gemma 3, its text part: normed queries and keys; of every six layers five see a window and turn faster.
 *
 * Gemma Team, 2025. https://arxiv.org/abs/2503.19786
 */
export const gemma3: Model<Gemma2Config, TokenInputs> = {
  ...gemma2,
  type: "gemma3_text",
  className: "Gemma3Text",

  config(json) {
    const read = configReader("gemma3_text", json);
    const shape = readGemma(read, json);
    if (read.has("attn_logit_softcapping")) read.refuse("attn_logit_softcapping", "null");
    const [local, global] = [localRope(read, shape), globalRope(read, shape)];
    const window = read.nullable("sliding_window", 4096);
    const every = read.number("sliding_window_pattern", 6);
    const windowed = windowedLayers(read, shape, (layer) => (layer + 1) % every !== 0);
    const config = {
      ...shape,
      views: windowed.map((near) => (near ? { window, rope: local } : { rope: global })),
      attnLogitSoftcapping: undefined,
      finalLogitSoftcapping: read.nullable("final_logit_softcapping"),
    };
    read.finish();
    return config;
  },

  parameters: (config, task) =>
    decoderParameters(
      config,
      task,
      (layer) => [
        ...sandwichTensors(layer, config),
        ...attentionTensors(`${layer}.self_attn`, config, { bias: config.attentionBias }),
        ...offsetRmsNormTensors(`${layer}.self_attn.q_norm`, config.headDim),
        ...offsetRmsNormTensors(`${layer}.self_attn.k_norm`, config.headDim),
        ...gatedMlpTensors(`${layer}.mlp`, config),
      ],
      offsetRmsNormTensors,
    ),

  hidden: gemmaHidden(layer),
};

function layer(w: Scope, x: Value, context: LayerContext, config: Gemma2Config): LayerOutput {
  return sandwich(w, x, config, (self, h) => attend(self, h, context, config));
}

function attend(w: Scope, x: Value, context: LayerContext, config: Gemma2Config): LayerOutput {
  const { query, key, value } = projectHeads(w, x, config);
  const heads = {
    query: offsetRmsNorm(w.at("q_norm"), query, config.rmsNormEps),
    key: offsetRmsNorm(w.at("k_norm"), key, config.rmsNormEps),
    value,
  };
  const { mixed, present } = attendHeads(heads, context, { scale: config.queryPreAttnScalar ** -0.5 });
  return { states: linear(w.at("o_proj"), mixed), present };
}

type Turned = Pick<RopeOptions, "headDim" | "maxPositions">;

/** What turns the layers that see everything; scaled for long contexts. */
function globalRope(read: ConfigReader, { headDim, maxPositions }: Turned): RopeOptions {
  const own = read.object("rope_parameters")?.object("full_attention");
  const scaling = ropeScaling(own ?? read.object("rope_scaling"));
  const theta = own?.has("rope_theta") ? own : read;
  return { headDim, maxPositions, theta: theta.number("rope_theta", 1e6), scaling };
}

/** What turns the layers that see a window. */
function localRope(read: ConfigReader, { headDim, maxPositions }: Turned): RopeOptions {
  const own = read.object("rope_parameters")?.object("sliding_attention");
  const theta = own?.has("rope_theta")
    ? own.number("rope_theta")
    : read.number("rope_local_base_freq", 10000);
  return { headDim, maxPositions, theta, scaling: ropeScaling(own) };
}
