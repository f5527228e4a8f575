import type { JsonObject } from "../../json.ts";
import {
  type Architecture,
  float,
  type HfConfig,
  type StoredConfig,
  type StoredModel,
  uint,
} from "./architecture.ts";
import {
  decoderConfig,
  decoderTrunk,
  decoderValues,
  numberAt,
  onlyFullHeads,
  ropeOf,
  rotaryWidth,
  scalingType,
  shapeValues,
} from "./decoder.ts";

/** Phi-3: queries, keys and values in one matrix, and so gate and up. */
export const phi3: Architecture = {
  name: "phi3",
  modelTypes: ["phi3"],
  className: "Phi3ForCausalLM",
  trunk: decoderTrunk,
  layers: "model.layers",
  layer: {
    attn_qkv: "self_attn.qkv_proj",
    attn_output: "self_attn.o_proj",
    ffn_up: "mlp.gate_up_proj",
    ffn_down: "mlp.down_proj",
    attn_norm: "input_layernorm",
    ffn_norm: "post_attention_layernorm",
  },
  changes: {},
  config(stored) {
    const long = longRope(stored);
    // What is left are the scalings that other decoders have.
    const shared = decoderConfig(long === undefined ? stored : { ...stored, ropeTables: new Map() });
    const window = stored.number("attention.sliding_window") ?? 0;
    return {
      ...shared,
      hidden_act: "silu",
      original_max_position_embeddings:
        stored.number("rope.scaling.original_context_length") ?? shared.max_position_embeddings ?? null,
      sliding_window: window === 0 ? null : window,
      ...(long !== undefined && { rope_scaling: long }),
    };
  },
  store(config) {
    config.only("hidden_act", "silu");
    onlyFullHeads(config);
    const { values, ropeTables } = isLong(scalingType(ropeOf(config)))
      ? longValues(config)
      : decoderValues(config);
    const original = uint(originalOf(config) ?? config.number("max_position_embeddings"));
    const stored = new Map([["rope.scaling.original_context_length", original], ...values]);
    if (config.has("sliding_window"))
      stored.set("attention.sliding_window", uint(config.number("sliding_window")));
    return { values: stored, ...(ropeTables && { ropeTables }) };
  },
};

/** Positions of the original context where a longrope model does not name them. */
const ORIGINAL_POSITIONS = 4096;

/** LongRoPE of a file: divisors up to the original context and beyond it, and what cosines and sines are multiplied by. */
function longRope(stored: StoredModel): JsonObject | undefined {
  const [short, long] = [
    stored.ropeTables.get("rope_factors_short.weight"),
    stored.ropeTables.get("rope_factors_long.weight"),
  ];
  if (short === undefined && long === undefined) return undefined;
  if (short === undefined || long === undefined)
    throw stored.refuse(
      `has rope_factors_${short === undefined ? "long" : "short"} alone, expected those of short and of long texts`,
    );
  const positions = stored.required("context_length");
  const original = stored.number("rope.scaling.original_context_length") ?? positions;
  const factor = Math.fround(stored.number("rope.scaling.attn_factor") ?? 1);
  const usual = Math.abs(factor - attentionFactor(positions / original, original)) < 1e-6;
  return {
    rope_type: "longrope",
    short_factor: Array.from(short),
    long_factor: Array.from(long),
    ...(usual ? {} : { attention_factor: factor }),
  };
}

function longValues(config: HfConfig): StoredConfig {
  const { theta, scaling } = ropeOf(config);
  const original = originalOf(config) ?? ORIGINAL_POSITIONS;
  const stretch = numberAt(scaling, "factor") ?? config.number("max_position_embeddings") / original;
  const attention = numberAt(scaling, "attention_factor") ?? attentionFactor(stretch, original);
  const values = shapeValues(config)
    .set("rope.freq_base", float(theta))
    .set("rope.scaling.attn_factor", float(attention))
    .set("rope.scaling.original_context_length", uint(original));
  const divisors = (key: string): Float32Array => {
    const list = scaling[key];
    const numbers = Array.isArray(list) ? list.filter((each) => typeof each === "number") : [];
    const turning = rotaryWidth(config) / 2;
    if (numbers.length !== turning)
      throw config.refuse(`the rotary scaling has ${numbers.length} numbers in ${key}, expected ${turning}`);
    return Float32Array.from(numbers);
  };
  return {
    values,
    ropeTables: new Map([
      ["rope_factors_long.weight", divisors("long_factor")],
      ["rope_factors_short.weight", divisors("short_factor")],
    ]),
  };
}

function isLong(type: string): boolean {
  return type === "longrope" || type === "su";
}

function originalOf(config: HfConfig): number | undefined {
  const named = numberAt(ropeOf(config).scaling, "original_max_position_embeddings");
  if (named !== undefined) return named;
  return config.has("original_max_position_embeddings")
    ? config.number("original_max_position_embeddings")
    : undefined;
}

/** What LongRoPE multiplies cosines and sines by, for a context that is `stretch` times the original. */
function attentionFactor(stretch: number, original: number): number {
  return stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
}
