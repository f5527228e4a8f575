import { isObject, type JsonObject, quote } from "../../json.ts";
import type { GgufValue } from "../metadata.ts";
import { ropeFactors, scalingOfFactors } from "../rope-factors.ts";
import { float, type HfConfig, type StoredConfig, type StoredModel, text, uint } from "./architecture.ts";

/** Modules of decoders that follow Llama's layout, outside of layers. */
export const decoderTrunk = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
} as const;

/** Modules of a layer in Llama's layout, without its norms. */
export const decoderLayer = {
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
} as const;

/** What every rotary decoder says of itself. */
export function decoderConfig(stored: StoredModel): JsonObject {
  if ((stored.number("expert_count") ?? 0) > 0)
    throw stored.refuse("has a mixture of experts, which is not supported");
  const heads = stored.required("attention.head_count");
  const width = stored.required("embedding_length");
  const headDim = stored.number("attention.key_length") ?? width / heads;
  const valueDim = stored.number("attention.value_length") ?? headDim;
  if (valueDim !== headDim)
    throw stored.refuse(`has values of ${valueDim} and keys of ${headDim}, expected equal sizes`);
  const rotary = stored.number("rope.dimension_count") ?? headDim;
  const theta = stored.number("rope.freq_base") ?? 10_000;
  return {
    hidden_size: width,
    intermediate_size: stored.required("feed_forward_length"),
    num_hidden_layers: stored.required("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: stored.number("attention.head_count_kv") ?? heads,
    head_dim: headDim,
    max_position_embeddings: stored.required("context_length"),
    rms_norm_eps: stored.required("attention.layer_norm_rms_epsilon"),
    vocab_size: stored.shape("token_embd.weight")[0] ?? 0,
    tie_word_embeddings: !stored.has("output.weight"),
    partial_rotary_factor: rotary / headDim,
    rope_theta: theta,
    rope_scaling: ropeScaling(stored, headDim, theta),
  };
}

/** Refuses heads that together are not as wide as the hidden state, where llama.cpp expects them to be. */
export function onlyFullHeads(config: HfConfig): void {
  const heads = config.number("num_attention_heads");
  const width = config.number("hidden_size");
  if (config.number("head_dim", width / heads) * heads !== width) {
    throw config.refuse(
      `llama.cpp takes heads of ${width / heads} here, hidden_size over num_attention_heads; head_dim is ${config.number("head_dim")}`,
    );
  }
}

function ropeScaling(stored: StoredModel, headDim: number, theta: number): JsonObject | null {
  const { ropeTables } = stored;
  const type =
    ropeTables.has("rope_factors_short.weight") || ropeTables.has("rope_factors_long.weight")
      ? "longrope"
      : (stored.text("rope.scaling.type") ?? "none");
  const factors = ropeTables.get("rope_freqs.weight");
  if (factors !== undefined) {
    if (factors.length !== headDim / 2) {
      throw stored.refuse(`has ${factors.length} rope_freqs for heads of ${headDim}`);
    }
    if (factors.every((factor) => factor === 1)) return null;
    const found = scalingOfFactors(factors, { headDim, theta });
    if (found === undefined) throw stored.refuse("stores rope_freqs that are not the scaling of Llama 3");
    return {
      rope_type: "llama3",
      factor: found.factor,
      low_freq_factor: found.lowFreqFactor,
      high_freq_factor: found.highFreqFactor,
      original_max_position_embeddings: found.originalMaxPositionEmbeddings,
    };
  }
  if (type === "none") return null;
  const factor = stored.number("rope.scaling.factor") ?? 1;
  if (type === "linear") return factor === 1 ? null : { rope_type: "linear", factor };
  throw stored.refuse(`has the rotary scaling ${quote(type)}, supported are "none" and "linear"`);
}

/** The same values for storing. */
export function decoderValues(config: HfConfig): DecoderStored {
  return withRope(shapeValues(config), config, ropeOf(config));
}

/** What is stored of a decoder, to which an architecture adds its own. */
export interface DecoderStored extends StoredConfig {
  readonly values: Map<string, GgufValue>;
}

/** The values of a decoder's shape, without what turns its heads. */
export function shapeValues(config: HfConfig): Map<string, GgufValue> {
  const heads = config.number("num_attention_heads");
  const headDim = headDimOf(config);
  return new Map([
    ["context_length", uint(config.number("max_position_embeddings", 2048))],
    ["embedding_length", uint(config.number("hidden_size"))],
    ["block_count", uint(config.number("num_hidden_layers"))],
    ["feed_forward_length", uint(config.number("intermediate_size"))],
    ["attention.head_count", uint(heads)],
    ["attention.head_count_kv", uint(config.number("num_key_value_heads", heads))],
    ["attention.key_length", uint(headDim)],
    ["attention.value_length", uint(headDim)],
    ["attention.layer_norm_rms_epsilon", float(config.number("rms_norm_eps", 1e-6))],
    ["rope.dimension_count", uint(rotaryWidth(config))],
    ["vocab_size", uint(config.number("vocab_size"))],
  ]);
}

/** Places of a head that turn. */
export function rotaryWidth(config: HfConfig): number {
  const rope = objectAt(config.json, "rope_parameters");
  const partial = numberAt(rope ?? {}, "partial_rotary_factor") ?? config.number("partial_rotary_factor", 1);
  return Math.floor(headDimOf(config) * partial);
}

/** What turns the heads of a model. */
export interface StoredRope {
  readonly theta: number;
  /** The object that names the scaling. */
  readonly scaling: JsonObject;
}

/** What turns all heads, from where Transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`) has it. */
export function ropeOf(config: HfConfig): StoredRope {
  const parameters = objectAt(config.json, "rope_parameters");
  return {
    theta: numberAt(parameters ?? {}, "rope_theta") ?? config.number("rope_theta", 10_000),
    scaling: parameters ?? objectAt(config.json, "rope_scaling") ?? {},
  };
}

/** The name of a scaling: "default" where there is none. */
export function scalingType({ scaling }: StoredRope): string {
  return String(scaling.rope_type ?? scaling.type ?? "default");
}

/** Values of a decoder with what turns its heads. */
export function withRope(
  shape: ReadonlyMap<string, GgufValue>,
  config: HfConfig,
  rope: StoredRope,
): DecoderStored {
  const { theta, scaling } = rope;
  const values = new Map(shape).set("rope.freq_base", float(theta));
  const need = (key: string): number => {
    const value = numberAt(scaling, key);
    if (value === undefined) throw config.refuse(`the rotary scaling has no ${key}`);
    return value;
  };
  const type = scalingType(rope);
  switch (type) {
    case "default":
      return { values };
    case "linear":
      values.set("rope.scaling.type", text("linear")).set("rope.scaling.factor", float(need("factor")));
      return { values };
    case "llama3": {
      const llama3 = {
        factor: need("factor"),
        lowFreqFactor: need("low_freq_factor"),
        highFreqFactor: need("high_freq_factor"),
        originalMaxPositionEmbeddings: need("original_max_position_embeddings"),
      };
      const factors = ropeFactors(llama3, { headDim: headDimOf(config), theta });
      return { values, ropeTables: new Map([["rope_freqs.weight", factors]]) };
    }
    default:
      throw config.refuse(
        `GGUF holds no rotary scaling ${JSON.stringify(type)} here; supported are default, linear, llama3`,
      );
  }
}

function headDimOf(config: HfConfig): number {
  return config.number("head_dim", config.number("hidden_size") / config.number("num_attention_heads"));
}

/** The object at a key; undefined where there is none. */
export function objectAt(json: JsonObject, key: string): JsonObject | undefined {
  const value = json[key];
  return isObject(value) ? value : undefined;
}

/** The number at a key; undefined where there is none. */
export function numberAt(json: JsonObject, key: string): number | undefined {
  const value = json[key];
  return typeof value === "number" ? value : undefined;
}
