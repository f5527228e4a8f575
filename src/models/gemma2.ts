import { add, mul, tanh } from "../graph/ops.ts";
import type { Value } from "../graph/value.ts";
import { gatedMlp } from "../nn/gated-mlp.ts";
import { linear } from "../nn/linear.ts";
import { offsetRmsNorm } from "../nn/norm.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, type ConfigReader, configReader, refuseForeign } from "./config.ts";
import {
  attendHeads,
  attentionTensors,
  type DecoderConfig,
  decoder,
  decoderHead,
  decoderParameters,
  gatedMlpTensors,
  type LayerContext,
  type LayerOutput,
  projectHeads,
  readDecoder,
  windowedLayers,
} from "./decoder.ts";
import { gemmaHidden } from "./gemma.ts";
import type { Model, TokenInputs } from "./model.ts";
import { offsetRmsNormTensors, type Tensors } from "./parameters.ts";
import { ropeOptions } from "./rope-config.ts";

export interface Gemma2Config extends DecoderConfig {
  readonly hiddenAct: string;
  readonly attentionBias: boolean;
  /** Scores are divided by its root. */
  readonly queryPreAttnScalar: number;
  /** Bound of the scores; absent: none. */
  readonly attnLogitSoftcapping: number | undefined;
  /** Bound of the logits; absent: none. */
  readonly finalLogitSoftcapping: number | undefined;
}

/**
 * Gemma 2: bounded scores and logits, every second layer sees a window, norms before and after attention and MLP.
 *
 * Gemma Team, 2024. https://arxiv.org/abs/2408.00118
 */
export const gemma2: Model<Gemma2Config, TokenInputs> = {
  ...decoder,
  type: "gemma2",
  className: "Gemma2",

  config(json) {
    const read = configReader("gemma2", json);
    const shape = readGemma(read, json);
    const rope = ropeOptions(read, shape);
    const window = read.nullable("sliding_window", 4096);
    const windowed = windowedLayers(read, shape, (layer) => layer % 2 === 0);
    const config = {
      ...shape,
      views: windowed.map((near) => ({ window: near ? window : undefined, rope })),
      attnLogitSoftcapping: read.nullable("attn_logit_softcapping", 50),
      finalLogitSoftcapping: read.nullable("final_logit_softcapping", 30),
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
        ...gatedMlpTensors(`${layer}.mlp`, config),
      ],
      offsetRmsNormTensors,
    ),

  hidden: gemmaHidden(layer),

  head(w, states, inputs, config, task) {
    const output = decoderHead(w, states, inputs, config, task);
    const bound = config.finalLogitSoftcapping;
    return task !== "causal-lm" || bound === undefined ? output : mul(tanh(mul(output, 1 / bound)), bound);
  },
};

function layer(w: Scope, x: Value, context: LayerContext, config: Gemma2Config): LayerOutput {
  return sandwich(w, x, config, (self, h) => attend(self, h, context, config));
}

function attend(w: Scope, x: Value, context: LayerContext, config: Gemma2Config): LayerOutput {
  const { mixed, present } = attendHeads(projectHeads(w, x, config), context, {
    scale: config.queryPreAttnScalar ** -0.5,
    softCap: config.attnLogitSoftcapping,
  });
  return { states: linear(w.at("o_proj"), mixed), present };
}

/** What Gemma 2 and 3 spell alike. */
export function readGemma(
  read: ConfigReader,
  json: Readonly<Record<string, unknown>>,
): Omit<Gemma2Config, "views" | "attnLogitSoftcapping" | "finalLogitSoftcapping"> {
  refuseForeign(read, "hidden_activation");
  read.only("use_bidirectional_attention", false);
  return {
    ...readDecoder(read, json, { rmsNormEps: 1e-6, tieWordEmbeddings: true, headDim: 256 }),
    hiddenAct: read.string("hidden_activation", "gelu_pytorch_tanh"),
    attentionBias: read.boolean("attention_bias", false),
    queryPreAttnScalar: read.number("query_pre_attn_scalar", 256),
  };
}

const norms = [
  "input_layernorm",
  "post_attention_layernorm",
  "pre_feedforward_layernorm",
  "post_feedforward_layernorm",
] as const;

/** The four norms of a layer. */
export function sandwichTensors(path: string, { hiddenSize }: DecoderConfig): Tensors {
  return norms.flatMap((name) => offsetRmsNormTensors(`${path}.${name}`, hiddenSize));
}

/** A layer whose attention and MLP have a norm before and a norm after. */
export function sandwich(
  w: Scope,
  x: Value,
  { rmsNormEps, hiddenAct }: Pick<Gemma2Config, "rmsNormEps" | "hiddenAct">,
  attention: (w: Scope, x: Value) => LayerOutput,
): LayerOutput {
  const norm = (name: (typeof norms)[number], y: Value): Value => offsetRmsNorm(w.at(name), y, rmsNormEps);
  const { states, present } = attention(w.at("self_attn"), norm("input_layernorm", x));
  const attended = add(x, norm("post_attention_layernorm", states));
  const inner = gatedMlp(w.at("mlp"), norm("pre_feedforward_layernorm", attended), activation(hiddenAct));
  return { states: add(attended, norm("post_feedforward_layernorm", inner)), present };
}
