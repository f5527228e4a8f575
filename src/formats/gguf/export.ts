import { TributaryError } from "../../errors.ts";
import { widen } from "../../tensor/convert.ts";
import { listNames } from "../../tensor/matching.ts";
import type { Params } from "../../tensor/params.ts";
import { type BlockType, blockFormats, encodeBlocks } from "../../tensor/quant/blocks.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { JsonObject } from "../json.ts";
import {
  type Architecture,
  changeOf,
  float,
  ggufName,
  type HfConfig,
  text,
  uint,
} from "./architectures/architecture.ts";
import { architectureFor } from "./architectures.ts";
import type { GgufMetadata, GgufValue } from "./metadata.ts";
import { toRotaryRows, transposed } from "./rows.ts";
import type { GgufFile, GgufTensor } from "./write.ts";

/** How matrices are written; vectors are F32 in every file. */
export type GgufFloat = "F32" | "F16" | "Q8_0";

/** `general.file_type`. */
const fileTypes: { readonly [K in GgufFloat]: number } = { F32: 0, F16: 1, Q8_0: 7 };

export interface GgufModelOptions {
  /** config.json. */
  readonly json: JsonObject;
  /** The tensors of a checkpoint, by its names. */
  readonly weights: Params;
  /** `tokenizer.*` values. */
  readonly tokenizer: GgufMetadata;
  readonly type: GgufFloat;
  readonly name: string;
}

/** A model as llama.cpp reads it; refuses by name what its format has no place for. */
export function ggufModel({ json, weights, tokenizer, type, name }: GgufModelOptions): GgufFile {
  const architecture = architectureFor(json.model_type);
  const { values, ropeTables = new Map() } = architecture.store(hfConfig(json));
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text(architecture.name)],
    ["general.type", text("model")],
    ["general.name", text(name)],
    ["general.file_type", uint(fileTypes[type])],
    ["general.quantization_version", uint(2)],
    ...[...values].map(([key, value]) => [`${architecture.name}.${key}`, value] as const),
    ...tokenizer,
    ...(typeof json.type_vocab_size === "number"
      ? [["tokenizer.ggml.token_type_count", uint(json.type_vocab_size)] as const]
      : []),
  ]);
  const foreign = [...weights.keys()].filter((each) => ggufName(architecture, each) === undefined);
  if (foreign.length > 0) {
    throw refuse(`${architecture.name} has no place in GGUF for ${listNames(foreign)}`);
  }
  const tensors = [...weights].map(([each, tensor]): GgufTensor => {
    const place = ggufName(architecture, each) ?? each;
    const change = changeOf(architecture, place);
    const shape = change?.kind === "transposed" ? [...tensor.shape].reverse() : tensor.shape;
    const stored = typeOf(place, shape, type);
    return {
      name: place,
      type: stored,
      shape,
      encode: () => encodeBlocks(stored, storedValues(architecture, place, tensor, json)),
    };
  });
  for (const [place, divisors] of ropeTables) {
    const encode = (): Uint8Array => encodeBlocks("F32", divisors);
    tensors.push({ name: place, type: "F32", shape: [divisors.length], encode });
  }
  return { metadata, tensors };
}

/** A module with its factors: `scaling * B A` is added to its weight. */
export interface GgufAdapterModule {
  readonly module: string;
  readonly a: Tensor; // [rank, in]
  readonly b: Tensor; // [out, rank]
  readonly scaling: number;
}

export interface GgufAdapterOptions {
  /** config.json of the base. */
  readonly json: JsonObject;
  readonly modules: readonly GgufAdapterModule[];
  readonly type: "F32" | "F16";
  readonly name: string;
}

/** An adapter as llama.cpp reads it over a base in GGUF. */
export function ggufAdapter({ json, modules, type, name }: GgufAdapterOptions): GgufFile {
  const architecture = architectureFor(json.model_type);
  const [first] = modules;
  if (first === undefined) throw refuse("the adapter has no low-rank module");
  // llama.cpp scales each pair by alpha over its own rank; other rules go into B.
  const alpha = first.scaling * rankOf(first);
  const tensors = modules.flatMap((each): GgufTensor[] => {
    const weight = `${each.module}.weight`;
    const place = ggufName(architecture, weight);
    if (place === undefined) throw refuse(`${architecture.name} has no place in GGUF for ${weight}`);
    const [out = 0, rank = 0] = each.b.shape;
    const factor = (each.scaling * rank) / alpha;
    const change = changeOf(architecture, place);
    return [
      {
        name: `${place}.lora_a`,
        type,
        shape: each.a.shape,
        encode: () => encodeBlocks(type, widen(each.a).data),
      },
      {
        name: `${place}.lora_b`,
        type,
        shape: each.b.shape,
        encode() {
          const data = widen(each.b).data.map((value) => value * factor);
          const rows =
            change?.kind === "rotary-rows"
              ? toRotaryRows(data, rank, out / Number(hfConfig(json).number(change.heads, headsOf(json))))
              : data;
          return encodeBlocks(type, rows);
        },
      },
    ];
  });
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text(architecture.name)],
    ["general.type", text("adapter")],
    ["general.name", text(name)],
    ["general.file_type", uint(fileTypes[type])],
    ["adapter.type", text("lora")],
    ["adapter.lora.alpha", float(alpha)],
  ]);
  return { metadata, tensors };
}

function rankOf({ b }: GgufAdapterModule): number {
  return b.shape[1] ?? 0;
}

/** Query heads, which stand for key-value heads where a config.json does not name those. */
function headsOf(json: JsonObject): number {
  return hfConfig(json).number("num_attention_heads");
}

/** Vectors and tables of positions stay float32; rows that are no whole blocks are float16 in their place. */
function typeOf(place: string, shape: readonly number[], type: GgufFloat): BlockType {
  if (shape.length < 2 || /^(?:position_embd|token_types)\./.test(place)) return "F32";
  return (shape.at(-1) ?? 0) % blockFormats[type].values === 0 ? type : "F16";
}

function storedValues(
  architecture: Architecture,
  place: string,
  tensor: Tensor,
  json: JsonObject,
): Float32Array {
  const { data } = widen(tensor);
  const change = changeOf(architecture, place);
  const [rows = 0, width = 1] = tensor.shape;
  switch (change?.kind) {
    case "rotary-rows":
      return toRotaryRows(data, width, rows / hfConfig(json).number(change.heads, headsOf(json)));
    case "plus-one":
      return data.map((value) => value + 1);
    case "transposed":
      return transposed(data, rows, width);
    case undefined:
      return data;
  }
}

function hfConfig(json: JsonObject): HfConfig {
  const present = (key: string): boolean =>
    Object.hasOwn(json, key) && json[key] !== null && json[key] !== undefined;
  return {
    json,
    has: present,
    number(key, otherwise) {
      const value = present(key) ? json[key] : otherwise;
      if (typeof value !== "number") {
        throw refuse(`config.json: ${key} is ${JSON.stringify(json[key])}, expected a number`);
      }
      return value;
    },
    only(key, ...allowed) {
      if (!present(key) || allowed.includes(json[key] ?? null)) return;
      throw refuse(
        `config.json: ${key} is ${JSON.stringify(json[key])}, GGUF holds ${allowed.map((each) => JSON.stringify(each)).join(" or ")}`,
      );
    },
    refuse,
  };
}

function refuse(message: string): TributaryError {
  return new TributaryError("unsupported-model", `export: ${message}`);
}
