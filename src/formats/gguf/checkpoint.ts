import { TributaryError } from "../../errors.ts";
import type { BlockType } from "../../tensor/quant/blocks.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { isObject, type Json, type JsonObject, quote } from "../json.ts";
import type { TensorFile } from "../safetensors.ts";
import {
  type Architecture,
  type Change,
  changeOf,
  checkpointName,
  ropeTableNames,
  type StoredModel,
} from "./architectures/architecture.ts";
import { architectureOf } from "./architectures.ts";
import { decodeRows, type Gguf, rowBytes } from "./gguf.ts";
import { type MetadataReader, metadataReader } from "./metadata.ts";
import { fromRotaryRows, transposed } from "./rows.ts";
import { tokenIds } from "./tokenizer.ts";

/** A tensor as it is stored, its rows in the order of the checkpoint. */
export interface StoredBlocks {
  readonly type: BlockType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A GGUF file in the names, shapes and order of rows of a Hugging Face checkpoint. */
export interface GgufCheckpoint extends TensorFile {
  /** config.json, as far as the file tells it. */
  readonly config: JsonObject;
  /** How a tensor is stored; undefined where the checkpoint's values are not those that are stored. */
  blockType(name: string): BlockType | undefined;
  /** The blocks of a tensor, undecoded; undefined where the checkpoint's values are not those that are stored. */
  blocks(name: string): Promise<StoredBlocks | undefined>;
}

/** Refuses architectures, scalings and tensor types that are not supported, by name. */
export async function ggufCheckpoint(gguf: Gguf): Promise<GgufCheckpoint> {
  const read = metadataReader(gguf.metadata, gguf.file);
  const type = read.text("general.type") ?? "model";
  if (type !== "model") {
    throw new TributaryError(
      "unsupported-model",
      `${gguf.file}: general.type is ${quote(type)}, expected a model`,
    );
  }
  const architecture = architectureOf(read.text("general.architecture"), gguf.file);
  const stored = await storedModel(gguf, architecture, read);
  if (stored.required("block_count") > gguf.names.length) {
    throw stored.refuse(
      `claims ${stored.required("block_count")} layers and has ${gguf.names.length} tensors`,
    );
  }
  const config: JsonObject = {
    architectures: [architecture.className],
    model_type: architecture.modelTypes[0] ?? "",
    ...rounded(architecture.config(stored)),
    ...tokenIds(read),
    torch_dtype: "float32",
  };
  const places = new Map<string, string>();
  for (const name of gguf.names) {
    if (!isRopeTable(name)) places.set(checkpointName(architecture, name) ?? name, name);
  }
  const placeOf = (name: string): string => {
    const place = places.get(name);
    if (place === undefined) {
      throw new TributaryError(
        "tensor-missing",
        `${gguf.file}: no tensor ${quote(name)}; it has ${places.size} tensors`,
      );
    }
    return place;
  };
  const changed = (place: string): Change | undefined => changeOf(architecture, place);
  /** Rows of a tensor, those of heads in the checkpoint's order; a vector is one row, whose numbers are turned. */
  const rows = async (place: string, headDim: number | undefined, from?: number, to?: number) => {
    const bytes = await gguf.blocks(place, from, to);
    if (headDim === undefined) return bytes;
    const { type, shape } = gguf.info(place);
    const size = shape.length === 1 ? bytes.length / (shape[0] ?? 1) : rowBytes(type, shape);
    return fromRotaryRows(bytes, size, headDim);
  };
  const headDimOf = (place: string): number | undefined => {
    const change = changed(place);
    if (change?.kind !== "rotary-rows") return undefined;
    const heads = Number(config[change.heads]);
    const [out = 0] = gguf.info(place).shape;
    if (out % (2 * heads) !== 0) {
      throw stored.refuse(`${quote(place)} has ${out} rows, which are no ${heads} heads of an even size`);
    }
    return out / heads;
  };
  /** Whether the numbers are those that are stored, at most in another order of rows. */
  const isKept = (place: string): boolean => (changed(place)?.kind ?? "rotary-rows") === "rotary-rows";
  return {
    config,
    names: [...places.keys()],
    metadata: new Map(
      [...gguf.metadata].flatMap(([key, value]) =>
        value.type === "string" && key.startsWith("general.") ? [[key, value.value]] : [],
      ),
    ),
    info(name) {
      const place = placeOf(name);
      const { shape, start, end } = gguf.info(place);
      const turned = changed(place)?.kind === "transposed" ? [...shape].reverse() : shape;
      return { dtype: "float32", shape: turned, start, end };
    },
    async tensor(name) {
      const place = placeOf(name);
      const { type, shape } = gguf.info(place);
      const headDim = headDimOf(place);
      const step = shape.length === 1 ? 1 : (headDim ?? 1);
      const read = (from: number, to: number) => rows(place, headDim, from, to);
      return restored(await decodeRows(type, shape, read, step), changed(place));
    },
    blockType(name) {
      const place = placeOf(name);
      return isKept(place) ? gguf.info(place).type : undefined;
    },
    async blocks(name) {
      const place = placeOf(name);
      if (!isKept(place)) return undefined;
      const { type, shape } = gguf.info(place);
      return { type, shape, bytes: await rows(place, headDimOf(place)) };
    },
  };
}

function isRopeTable(name: string): boolean {
  return ropeTableNames.some((table) => table === name);
}

function restored(tensor: Tensor<"float32">, change: Change | undefined): Tensor<"float32"> {
  if (change?.kind === "plus-one") return { ...tensor, data: tensor.data.map((value) => value - 1) };
  if (change?.kind !== "transposed") return tensor;
  const [out = 0, inner = 0] = tensor.shape;
  return { dtype: "float32", shape: [inner, out], data: transposed(tensor.data, out, inner) };
}

async function storedModel(gguf: Gguf, { name }: Architecture, read: MetadataReader): Promise<StoredModel> {
  const names = new Set(gguf.names);
  const refuse = (text: string): TributaryError =>
    new TributaryError("unsupported-model", `${gguf.file}: ${text}`);
  const ropeTables = new Map<(typeof ropeTableNames)[number], Float32Array>();
  for (const table of ropeTableNames)
    if (names.has(table)) ropeTables.set(table, (await gguf.tensor(table)).data);
  const number = (key: string): number | undefined => read.number(`${name}.${key}`);
  return {
    number,
    required(key) {
      const value = number(key);
      if (value === undefined) throw refuse(`the metadata has no ${quote(`${name}.${key}`)}`);
      return value;
    },
    text: (key) => read.text(`${name}.${key}`),
    has: (tensor) => names.has(tensor),
    shape(tensor) {
      if (!names.has(tensor)) throw refuse(`has no tensor ${quote(tensor)}`);
      return gguf.info(tensor).shape;
    },
    ropeTables,
    refuse,
  };
}

/** float32 numbers of the metadata in their shortest spelling: 9.999999747378752e-6 is 1e-5. */
function rounded(json: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, roundedValue(value)]));
}

function roundedValue(value: Json): Json {
  if (typeof value === "number") return Number.isInteger(value) ? value : shortest(value);
  if (Array.isArray(value)) return value.map(roundedValue);
  return isObject(value) ? rounded(value) : value;
}

function shortest(value: number): number {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}
