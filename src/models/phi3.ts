import { add, mul, slice } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import { splitHeads } from "../nn/attention.ts";
import { embedding } from "../nn/embedding.ts";
import { linear } from "../nn/linear.ts";
import { rmsNorm } from "../nn/norm.ts";
import type { RopeOptions, RopeScaling } from "../nn/rope.ts";
import type { Scope } from "../nn/scope.ts";
import { activation, type ConfigReader, configReader, refuseForeign } from "./config.ts";
import {
  attendHeads,
  type DecoderConfig,
  decoder,
  decoderParameters,
  everyLayer,
  type Heads,
  type LayerContext,
  type LayerOutput,
  readDecoder,
  runLayers,
} from "./decoder.ts";
import type { Model, TokenInputs } from "./model.ts";
import { linearTensors, rmsNormTensors } from "./parameters.ts";
import { ropeScaling, ropeType } from "./rope-config.ts";

export interface Phi3Config extends DecoderConfig {
  readonly hiddenAct: string;
}

/**
 * Phi-3, 3.5 and 4: Llama with fused projections, the rotation of a part of each head, and LongRoPE.
 *
 * Abdin et al., 2024. https://arxiv.org/abs/2404.14219; Ding et al., 2024. https://arxiv.org/abs/2402.13753
 */
export const phi3: Model<Phi3Config, TokenInputs> = {
  ...decoder,
  type: "phi3",
  className: "Phi3",

  config(json) {
    const read = configReader("phi3", json);
    refuseForeign(read);
    const shape = readDecoder(read, json, { rmsNormEps: 1e-5, tieWordEmbeddings: false });
    const window = read.nullable("sliding_window");
    const rope = phiRope(read, shape);
    const config = {
      ...shape,
      maxPositions: rope.maxPositions,
      views: everyLayer(shape, { window, rope }),
      hiddenAct: read.string("hidden_act", "silu"),
    };
    read.finish();
    return config;
  },

  parameters(config, task) {
    const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim } = config;
    const fused = (numAttentionHeads + 2 * numKeyValueHeads) * headDim;
    const plain = { bias: false };
    return decoderParameters(
      config,
      task,
      (layer) => [
        ...rmsNormTensors(`${layer}.input_layernorm`, hiddenSize),
        ...linearTensors(`${layer}.self_attn.qkv_proj`, fused, hiddenSize, plain),
        ...linearTensors(`${layer}.self_attn.o_proj`, hiddenSize, numAttentionHeads * headDim, plain),
        ...rmsNormTensors(`${layer}.post_attention_layernorm`, hiddenSize),
        ...linearTensors(`${layer}.mlp.gate_up_proj`, 2 * intermediateSize, hiddenSize, plain),
        ...linearTensors(`${layer}.mlp.down_proj`, hiddenSize, intermediateSize, plain),
      ],
      rmsNormTensors,
    );
  },

  hidden(w, inputs, config) {
    const embedded = embedding(w.at("model.embed_tokens"), inputs.inputIds); // [B, T, D]
    const { states, present } = runLayers(w.at("model.layers"), embedded, inputs, config, block);
    return { states: rmsNorm(w.at("model.norm"), states, config.rmsNormEps), present };
  },
};

function block(w: Scope, x: Value, context: LayerContext, config: Phi3Config): LayerOutput {
  const self = w.at("self_attn");
  const h = rmsNorm(w.at("input_layernorm"), x, config.rmsNormEps);
  const { mixed, present } = attendHeads(fusedHeads(self, h, config), context);
  const attended = add(x, linear(self.at("o_proj"), mixed));
  const normed = rmsNorm(w.at("post_attention_layernorm"), attended, config.rmsNormEps);
  return { states: add(attended, fusedMlp(w.at("mlp"), normed, config)), present };
}

/** Queries, keys and values side by side in one projection. */
function fusedHeads(w: Scope, x: Value, { numAttentionHeads, numKeyValueHeads, headDim }: Phi3Config): Heads {
  const fused = linear(w.at("qkv_proj"), x); // [B, T, (H + 2 Hkv) * d]
  const keys = numAttentionHeads * headDim;
  const values = keys + numKeyValueHeads * headDim;
  return {
    query: splitHeads(slice(fused, 2, 0, keys), numAttentionHeads),
    key: splitHeads(slice(fused, 2, keys, values), numKeyValueHeads),
    value: splitHeads(slice(fused, 2, values, Number(dimAt(fused.shape, 2))), numKeyValueHeads),
  };
}

/** Gate and up side by side in one projection. */
function fusedMlp(w: Scope, x: Value, { intermediateSize, hiddenAct }: Phi3Config): Value {
  const fused = linear(w.at("gate_up_proj"), x); // [B, T, 2 * inner]
  const gate = slice(fused, 2, 0, intermediateSize);
  const up = slice(fused, 2, intermediateSize, 2 * intermediateSize);
  return linear(w.at("down_proj"), mul(activation(hiddenAct)(gate), up));
}

/**
 * What turns the heads. LongRoPE has one set of factors up to the original context and another beyond it; only the
 * original context is addressed, so that a token's rotation does not depend on the length of its text.
 */
function phiRope(read: ConfigReader, { headDim, maxPositions }: DecoderShape): RopeOptions {
  const parameters = read.object("rope_parameters");
  const scaling = parameters ?? read.object("rope_scaling");
  const at = (key: string): ConfigReader => (parameters?.has(key) ? parameters : read);
  const turning = Math.floor(headDim * at("partial_rotary_factor").number("partial_rotary_factor", 1));
  if (turning % 2 !== 0)
    read.refuse("partial_rotary_factor", `an even number of turning places, not ${turning}`);
  const options = { headDim: turning, theta: at("rope_theta").number("rope_theta", 10000) };
  if (!scaling || !["longrope", "su"].includes(ropeType(scaling))) {
    return { ...options, maxPositions, scaling: ropeScaling(scaling) };
  }
  const original = at("original_max_position_embeddings").number("original_max_position_embeddings", 4096);
  return {
    ...options,
    maxPositions: Math.min(maxPositions, original),
    scaling: longRope(scaling, {
      turning,
      stretch: read.number("max_position_embeddings", 4096) / original,
      original,
    }),
  };
}

type DecoderShape = Pick<DecoderConfig, "headDim" | "maxPositions">;

function longRope(
  read: ConfigReader,
  {
    turning,
    stretch,
    original,
  }: { readonly turning: number; readonly stretch: number; readonly original: number },
): RopeScaling {
  const factors = read.numbers("short_factor") ?? [];
  if (factors.length !== turning / 2) read.refuse("short_factor", `a list of ${turning / 2} numbers`);
  const factor = read.number("factor", stretch);
  const recommended = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original));
  return { type: "longrope", factors, attentionFactor: read.number("attention_factor", recommended) };
}
