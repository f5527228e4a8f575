import type { TributaryError } from "../../../errors.ts";
import type { Json, JsonObject } from "../../json.ts";
import type { GgufValue } from "../metadata.ts";

/** How the stored values of a module differ from those of a checkpoint in Hugging Face layout. */
export type Change =
  /** The rows of each head stand pair by pair, in place of first halves before second halves. */
  | { readonly kind: "rotary-rows"; readonly heads: "num_attention_heads" | "num_key_value_heads" }
  /** Norm weights are stored with the 1 that the model adds. */
  | { readonly kind: "plus-one" }
  /** Matrices [in, out] are stored [out, in]. */
  | { readonly kind: "transposed" };

/** Tensors that hold what rotary frequencies are divided by: everywhere, or up to the original context and beyond it. */
export const ropeTableNames = [
  "rope_freqs.weight",
  "rope_factors_short.weight",
  "rope_factors_long.weight",
] as const;

/** Divisors of the frequency of each pair of a head, by the name of their tensor. */
export type RopeTables = ReadonlyMap<(typeof ropeTableNames)[number], Float32Array>;

/** A GGUF file as its architecture sees it; keys are without the name of the architecture. */
export interface StoredModel {
  number(key: string): number | undefined;
  /** Refuses a file that lacks the key. */
  required(key: string): number;
  text(key: string): string | undefined;
  has(tensor: string): boolean;
  /** The shape of a tensor; refuses a file that lacks it. */
  shape(tensor: string): readonly number[];
  /** What rotary frequencies are divided by, where the file stores it. */
  readonly ropeTables: RopeTables;
  refuse(text: string): TributaryError;
}

/** The keys of a config.json that is to be stored. */
export interface HfConfig {
  number(key: string, otherwise?: number): number;
  has(key: string): boolean;
  /** Refuses any value but these; absent is allowed. */
  only(key: string, ...allowed: readonly Json[]): void;
  refuse(text: string): TributaryError;
  readonly json: JsonObject;
}

/** What a model is stored as: keys without the name of the architecture, and what rotary frequencies are divided by. */
export interface StoredConfig {
  readonly values: ReadonlyMap<string, GgufValue>;
  readonly ropeTables?: RopeTables;
}

/** One architecture of llama.cpp: its names and how its metadata and a config.json become each other. */
export interface Architecture {
  /** `general.architecture`. */
  readonly name: string;
  /** Values of `model_type` that are stored as this; the first is what a file is read as. */
  readonly modelTypes: readonly string[];
  /** The class of `architectures` in config.json. */
  readonly className: string;
  /** Prefix that some checkpoints put before every name of the trunk. */
  readonly prefix?: string;
  /** Modules outside of layers, GGUF to Hugging Face. */
  readonly trunk: Readonly<Record<string, string>>;
  /** The list of layers: `blk` in GGUF. */
  readonly layers: string;
  /** Modules of a layer, GGUF to Hugging Face. */
  readonly layer: Readonly<Record<string, string>>;
  /** By the GGUF name of the module. */
  readonly changes: Readonly<Record<string, Change>>;
  config(stored: StoredModel): JsonObject;
  store(config: HfConfig): StoredConfig;
}

/** The architecture's name of a checkpoint tensor, or the other way round, with layer number and `.weight` or `.bias` kept. */
export function ggufName(architecture: Architecture, name: string): string | undefined {
  const { prefix = "", layers } = architecture;
  const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
  const [module, suffix] = splitName(bare);
  const inside = module.startsWith(`${layers}.`)
    ? /^(\d+)\.(.+)$/.exec(module.slice(layers.length + 1))
    : null;
  const found = inside ? keyOf(architecture.layer, inside[2] ?? "") : keyOf(architecture.trunk, module);
  if (found === undefined) return undefined;
  return `${inside ? `blk.${inside[1]}.` : ""}${found}${suffix}`;
}

/** The checkpoint's name of a GGUF tensor. */
export function checkpointName(architecture: Architecture, name: string): string | undefined {
  const [module, suffix] = splitName(name);
  const inside = /^blk\.(\d+)\.(.+)$/.exec(module);
  const names = inside ? architecture.layer : architecture.trunk;
  const key = inside ? (inside[2] ?? "") : module;
  if (!Object.hasOwn(names, key)) return undefined;
  return `${inside ? `${architecture.layers}.${inside[1]}.` : ""}${names[key]}${suffix}`;
}

/** How a GGUF tensor differs from the checkpoint's. */
export function changeOf({ changes }: Architecture, name: string): Change | undefined {
  const [module, suffix] = splitName(name);
  const key = module.replace(/^blk\.\d+\./, "");
  const change = Object.hasOwn(changes, key) ? changes[key] : undefined;
  return change?.kind === "transposed" && suffix !== ".weight" ? undefined : change;
}

function splitName(name: string): [string, string] {
  const suffix = /\.(?:weight|bias)$/.exec(name)?.[0] ?? "";
  return [name.slice(0, name.length - suffix.length), suffix];
}

function keyOf(names: Readonly<Record<string, string>>, value: string): string | undefined {
  return Object.keys(names).find((key) => names[key] === value);
}

export const uint = (value: number): GgufValue => ({ type: "uint32", value });
export const float = (value: number): GgufValue => ({ type: "float32", value });
export const text = (value: string): GgufValue => ({ type: "string", value });
