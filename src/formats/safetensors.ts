import { TributaryError } from "../errors.ts";
import { type ArrayOf, allocate, arrayOver, byteSize, type DType } from "../tensor/dtype.ts";
import { listNames } from "../tensor/matching.ts";
import type { Params } from "../tensor/params.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type ByteSource, type Folder, readAll } from "./byte-source.ts";
import { isObject, type Json, type JsonObject, parseJsonObject, quote } from "./json.ts";

/** Where a tensor lies in its file. */
export interface TensorInfo {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Byte offsets from the start of the file. */
  readonly start: number;
  readonly end: number;
}

/** An open checkpoint: the header is read and checked, tensors are read when they are asked for. */
export interface TensorFile {
  readonly names: readonly string[];
  readonly metadata: ReadonlyMap<string, string>;
  /** Throws if there is no tensor of that name. */
  info(name: string): TensorInfo;
  /** Reads one tensor. */
  tensor(name: string): Promise<Tensor>;
}

/** The contents of a file in memory. */
export interface Safetensors {
  readonly params: Params;
  readonly metadata: ReadonlyMap<string, string>;
}

interface Header {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

const MAX_HEADER = 16 * 2 ** 20;
const MAX_NAME = 256;

const spellings: { readonly [K in DType]: string } = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  float8e4m3: "F8_E4M3",
  float8e5m2: "F8_E5M2",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint64: "U64",
  uint32: "U32",
  uint16: "U16",
  uint8: "U8",
  bool: "BOOL",
};

const dtypes: ReadonlyMap<string, DType> = new Map(
  (Object.keys(spellings) as DType[]).map((dtype) => [spellings[dtype], dtype]),
);

/** How a file is read. */
export interface OpenOptions {
  /** Tensors may be views of what the source gives, which nobody writes to. Default: they are copies. */
  readonly views?: boolean;
}

/** Opens a safetensors file of any size; `file` names it in messages. */
export async function openSafetensors(
  source: ByteSource,
  file = "safetensors",
  { views = false }: OpenOptions = {},
): Promise<TensorFile> {
  const length = headerLength(await source.read(0, Math.min(8, source.size)), source.size, file);
  const { tensors, metadata } = readHeader(await source.read(8, 8 + length), source.size, file);
  const info = (name: string): TensorInfo => lookUp(tensors, name, file);
  return {
    names: [...tensors.keys()],
    metadata,
    info,
    async tensor(name) {
      const { dtype, shape, start, end } = info(name);
      return decode(dtype, shape, await source.read(start, end), views);
    },
  };
}

/** Reads a whole file that is already in memory; `file` names it in messages. */
export function parseSafetensors(bytes: Uint8Array, file = "safetensors"): Safetensors {
  const length = headerLength(bytes.subarray(0, 8), bytes.length, file);
  const { tensors, metadata } = readHeader(bytes.subarray(8, 8 + length), bytes.length, file);
  const params = new Map<string, Tensor>();
  for (const [name, { dtype, shape, start, end }] of tensors) {
    params.set(name, decode(dtype, shape, bytes.subarray(start, end)));
  }
  return { params, metadata };
}

/** Reads all tensors of an open file. */
export async function readTensors(file: TensorFile): Promise<Params> {
  const params = new Map<string, Tensor>();
  for (const name of file.names) params.set(name, await file.tensor(name));
  return params;
}

/**
 * Opens the checkpoint of a folder: `<stem>.safetensors`, or the shards that `<stem>.safetensors.index.json` lists.
 * A shard that is absent, and a tensor that only the index or only a shard knows, are errors.
 */
export async function openCheckpoint(folder: Folder, stem = "model"): Promise<TensorFile> {
  const single = folder.get(`${stem}.safetensors`);
  if (single !== undefined) return openSafetensors(single, `${stem}.safetensors`);
  const indexName = `${stem}.safetensors.index.json`;
  const index = folder.get(indexName);
  if (index === undefined) {
    refusePickles(folder);
    throw new TributaryError(
      "missing-file",
      `no ${stem}.safetensors and no ${indexName}; the folder holds ${listNames([...folder.keys()]) || "no files"}`,
    );
  }
  const listed = readIndex(parseJsonObject(await readAll(index), indexName), indexName);
  const shards = new Map<string, TensorFile>();
  for (const shard of new Set(listed.values())) {
    const source = folder.get(shard);
    if (source === undefined) {
      throw new TributaryError(
        "missing-file",
        `${indexName} lists ${quote(shard)}, which the folder does not hold`,
      );
    }
    shards.set(shard, await openSafetensors(source, shard));
  }
  for (const [shard, { names }] of shards) {
    const surplus = names.filter((name) => listed.get(name) !== shard);
    const present = new Set(names);
    const missing = [...listed]
      .filter(([name, place]) => place === shard && !present.has(name))
      .map(([name]) => name);
    if (missing.length > 0) throw refuse("index", indexName, `${shard} lacks ${listNames(missing)}`);
    if (surplus.length > 0) throw refuse("index", indexName, `${shard} holds unlisted ${listNames(surplus)}`);
  }
  const shardOf = (name: string): TensorFile => {
    const shard = shards.get(lookUp(listed, name, indexName));
    if (shard === undefined) throw new RangeError(`${indexName}: no shard for ${quote(name)}`);
    return shard;
  };
  return {
    names: [...listed.keys()],
    metadata: new Map([...shards.values()].flatMap(({ metadata }) => [...metadata])),
    info: (name) => shardOf(name).info(name),
    tensor: (name) => shardOf(name).tensor(name),
  };
}

/** Throws where a folder holds its weights as Python pickles, which can run any program, with the command that converts them. */
function refusePickles(folder: Folder): void {
  const pickle = [...folder.keys()].find((name) => /^(?:pytorch_model|adapter_model).*\.bin$/.test(name));
  if (pickle === undefined) return;
  const stem = pickle.startsWith("adapter") ? "adapter_model" : "model";
  throw new TributaryError(
    "pickled-weights",
    `the weights are in ${pickle}, which is a program for Python and is not read; convert it in its folder with Python's torch and safetensors:\n  ${conversion(pickle, stem)}`,
  );
}

/** Reads all pickles of a model, without running what is in them, and writes one safetensors file. */
function conversion(pickle: string, stem: string): string {
  const files = `${pickle.replace(/(?:-\d+-of-\d+)?\.bin$/, "")}*.bin`;
  const load = "torch.load(f, map_location='cpu', weights_only=True)";
  return `python -c "import glob, torch; from safetensors.torch import save_file; save_file({k: v.clone().contiguous() for f in sorted(glob.glob('${files}')) for k, v in ${load}.items()}, '${stem}.safetensors', {'format': 'pt'})"`;
}

/** A file as bytes; equal tensors and metadata give equal bytes, whatever their order. */
export function writeSafetensors(
  params: Params,
  metadata: ReadonlyMap<string, string> = new Map(),
): Uint8Array {
  const pieces = safetensorsPieces(params, metadata);
  const bytes = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}

/**
 * The header and then each tensor, as views that are not copied. Tensors stand in the order of their names, wider
 * element types first, so that every tensor is aligned to its element size.
 */
export function safetensorsPieces(
  params: Params,
  metadata: ReadonlyMap<string, string> = new Map(),
): Uint8Array[] {
  const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  const ordered = [...params].sort(
    ([a, x], [b, y]) => byteSize(y.dtype) - byteSize(x.dtype) || compare(a, b),
  );
  const fields: string[] = [];
  if (metadata.size > 0) {
    const pairs = [...metadata].sort(([a], [b]) => compare(a, b));
    fields.push(
      `"__metadata__":{${pairs.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`)}}`,
    );
  }
  let offset = 0;
  for (const [name, { dtype, shape, data }] of ordered) {
    if (name.length > MAX_NAME || name === "__metadata__") {
      throw refuse("name", "safetensors", `cannot write a tensor named ${quote(name)}`);
    }
    const end = offset + data.byteLength;
    const entry = { dtype: spellings[dtype], shape, data_offsets: [offset, end] };
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    offset = end;
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  if (length > MAX_HEADER) throw refuse("header", "safetensors", `the header would take ${length} bytes`);
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, 8);
  return [
    header,
    ...ordered.map(([, { data }]) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ];
}

function headerLength(prefix: Uint8Array, fileSize: number, file: string): number {
  if (prefix.length < 8) throw refuse("truncated", file, `${fileSize} bytes, too short for a header`);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER)
    throw refuse("header", file, `the header claims ${length} bytes, the limit is ${MAX_HEADER}`);
  if (Number(length) > fileSize - 8) {
    throw refuse(
      "truncated",
      file,
      `the header claims ${length} bytes, the file has ${fileSize - 8} after its length`,
    );
  }
  return Number(length);
}

function readHeader(bytes: Uint8Array, fileSize: number, file: string): Header {
  if (bytes[0] !== 0x7b) throw refuse("header", file, "the header does not start with {");
  const metadata = new Map<string, string>();
  const found: [string, TensorInfo][] = [];
  const dataStart = 8 + bytes.length;
  for (const [name, entry] of Object.entries(parseJsonObject(bytes, `${file}: header`))) {
    if (name === "__metadata__") readMetadata(entry, metadata, file);
    else found.push([name, readEntry(name, entry, dataStart, file)]);
  }
  found.sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let expected = dataStart;
  for (const [name, { start, end }] of found) {
    if (start !== expected) {
      const what = start < expected ? "overlaps the tensor before it" : "leaves a gap before it";
      throw refuse(
        "offsets",
        file,
        `${quote(name)} ${what}: it starts at ${start - dataStart}, expected ${expected - dataStart}`,
      );
    }
    expected = end;
  }
  if (expected > fileSize) {
    throw refuse(
      "truncated",
      file,
      `the tensors need ${expected} bytes, the file has ${fileSize}; download it again`,
    );
  }
  if (expected < fileSize)
    throw refuse("offsets", file, `${fileSize - expected} bytes follow the last tensor`);
  return { tensors: new Map(found), metadata };
}

function readMetadata(entry: Json, metadata: Map<string, string>, file: string): void {
  if (!isObject(entry)) throw refuse("metadata", file, "__metadata__ is not an object");
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string")
      throw refuse("metadata", file, `__metadata__ ${quote(key)} is not a string`);
    metadata.set(key, value);
  }
}

function readEntry(name: string, entry: Json, dataStart: number, file: string): TensorInfo {
  if (name.length > MAX_NAME)
    throw refuse(
      "name",
      file,
      `the name ${quote(name)} has ${name.length} characters, the limit is ${MAX_NAME}`,
    );
  if (!isObject(entry)) throw refuse("header", file, `${quote(name)} is not described by an object`);
  const spelling = own(entry, "dtype");
  const dtype = typeof spelling === "string" ? dtypes.get(spelling) : undefined;
  if (dtype === undefined) {
    const got = quote(typeof spelling === "string" ? spelling : String(JSON.stringify(spelling)));
    throw refuse(
      "dtype",
      file,
      `${quote(name)} has dtype ${got}, expected one of ${[...dtypes.keys()].join(" ")}`,
    );
  }
  const shape = counts(own(entry, "shape"));
  if (shape === undefined)
    throw refuse("shape", file, `the shape of ${quote(name)} is not a list of integers >= 0`);
  const offsets = counts(own(entry, "data_offsets"));
  const [begin, end] = offsets ?? [];
  if (begin === undefined || end === undefined || offsets?.length !== 2 || end < begin) {
    throw refuse("offsets", file, `data_offsets of ${quote(name)} are not two integers 0 <= begin <= end`);
  }
  const bytes = safeProduct([...shape, byteSize(dtype)]);
  if (bytes !== end - begin) {
    throw refuse(
      "offsets",
      file,
      `${quote(name)} ${spelling} [${shape}] needs ${bytes ?? "more than 2^53"} bytes, its offsets span ${end - begin}`,
    );
  }
  if (!Number.isSafeInteger(dataStart + end))
    throw refuse("offsets", file, `${quote(name)} ends beyond 2^53`);
  return { dtype, shape, start: dataStart + begin, end: dataStart + end };
}

function readIndex(json: JsonObject, file: string): Map<string, string> {
  const map = own(json, "weight_map");
  if (!isObject(map)) throw refuse("index", file, "weight_map is not an object");
  const listed = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string")
      throw refuse("index", file, `the shard of ${quote(name)} is not a file name`);
    listed.set(name, shard);
  }
  return listed;
}

function own(entry: JsonObject, key: string): Json | undefined {
  return Object.hasOwn(entry, key) ? entry[key] : undefined;
}

/** A list of safe integers >= 0, or undefined. */
function counts(value: Json | undefined): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return value.every((dim) => Number.isSafeInteger(dim) && dim >= 0) ? value : undefined;
}

/** The product, or undefined where it, or a partial product of its factors other than 0, is not a safe integer. */
function safeProduct(factors: readonly number[]): number | undefined {
  let product = 1;
  for (const factor of factors) {
    product *= factor === 0 ? 1 : factor;
    if (!Number.isSafeInteger(product)) return undefined;
  }
  return factors.includes(0) ? 0 : product;
}

function lookUp<T>(map: ReadonlyMap<string, T>, name: string, file: string): T {
  const value = map.get(name);
  if (value === undefined) {
    throw new TributaryError(
      "tensor-missing",
      `${file}: no tensor ${quote(name)}; it has ${map.size} tensors`,
    );
  }
  return value;
}

/** A tensor of these bytes: copied, which also aligns them. Bytes that are a whole buffer become the array, and views where they may. */
export function decode<K extends DType>(
  dtype: K,
  shape: readonly number[],
  bytes: Uint8Array,
  views = false,
): Tensor<K> {
  const { buffer, byteOffset, byteLength } = bytes;
  const whole = byteLength === buffer.byteLength;
  if (buffer instanceof ArrayBuffer && (whole || (views && byteOffset % byteSize(dtype) === 0)))
    return { dtype, shape, data: arrayOver(dtype, buffer, byteOffset, sizeOf(shape)) };
  const data: ArrayOf[K] = allocate(dtype, sizeOf(shape));
  new Uint8Array(data.buffer).set(bytes);
  return { dtype, shape, data };
}

function refuse(reason: string, file: string, text: string): TributaryError {
  return new TributaryError(`safetensors-${reason}`, `${file}: ${text}`);
}
