import { TributaryError } from "../../errors.ts";
import { allocate, byteSize, type HostArray } from "../../tensor/dtype.ts";
import { type BlockType, blockFormats } from "../../tensor/quant/blocks.ts";
import { sizeOf } from "../../tensor/tensor.ts";
import { quote } from "../json.ts";
import {
  ARRAY,
  type GgufArray,
  type GgufMetadata,
  type GgufValue,
  metadataReader,
  type NumberType,
  numberTypes,
  STRING,
} from "./metadata.ts";

/** Where the blocks of a tensor lie in its file. */
export interface BlockTensorInfo {
  readonly type: BlockType;
  /** Row-major as everywhere, outermost dimension first; the file lists the innermost first. */
  readonly shape: readonly number[];
  /** Byte offsets from the start of the file. */
  readonly start: number;
  readonly end: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, BlockTensorInfo>;
}

/** Ids of the block types in a file. */
export const blockTypeIds: { readonly [K in BlockType]: number } = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q2_K: 10,
  Q3_K: 11,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  Q8_K: 15,
  BF16: 30,
};

/** Block types that are known by name and not read. */
const unreadTypes: ReadonlyMap<number, string> = new Map([
  [9, "Q8_1"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [20, "IQ4_NL"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [29, "IQ1_M"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [39, "MXFP4"],
  [40, "NVFP4"],
]);

const blockTypes: ReadonlyMap<number, BlockType> = new Map(
  (Object.keys(blockTypeIds) as BlockType[]).map((type) => [blockTypeIds[type], type]),
);
const numberTypeOf: ReadonlyMap<number, NumberType> = new Map(
  (Object.keys(numberTypes) as NumberType[]).map((type) => [numberTypes[type], type]),
);

export const MAGIC = 0x46554747; // "GGUF"
export const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 2 ** 20;
const MAX_NAME = 256;
const MAX_KEY = 65_535;
const MAX_DIMS = 4;
const MAX_DEPTH = 4;
/** Most arrays, nested ones counted, so that a small file cannot ask for millions of objects. */
const MAX_ARRAYS = 10_000;

/** The header goes on after the bytes that were given. */
export class HeaderContinues extends Error {}

/**
 * Reads a header from the first bytes of a file of `size` bytes. Throws HeaderContinues where it goes on beyond them, and
 * TributaryError where the file is damaged; every count is compared with the size of the file before it is believed.
 */
export function parseHeader(bytes: Uint8Array, size: number, file: string): GgufHeader {
  const cursor = cursorOf(bytes, size, file);
  if (size < 4 || cursor.u32() !== MAGIC) throw refuse("magic", file, "does not begin with GGUF");
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    const swapped = version === 0x03000000 || version === 0x02000000;
    throw refuse(
      "version",
      file,
      swapped
        ? "is stored big-endian, expected little-endian"
        : `has GGUF version ${version}, expected 2 or 3; convert it with a newer llama.cpp`,
    );
  }
  const tensorCount = cursor.count(24, "tensors");
  const valueCount = cursor.count(13, "metadata values");
  const metadata = new Map<string, GgufValue>();
  const budget = { arrays: MAX_ARRAYS };
  for (let i = 0; i < valueCount; i++) {
    const key = cursor.text(MAX_KEY, "a metadata key");
    if (metadata.has(key)) throw refuse("metadata", file, `the metadata key ${quote(key)} appears twice`);
    metadata.set(key, readValue(cursor, cursor.u32(), key, budget));
  }
  const alignment = readAlignment(metadata, file);
  const found: [string, BlockTensorInfo][] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const [name, info] = readTensorInfo(cursor, alignment);
    if (names.has(name)) throw refuse("name", file, `the tensor ${quote(name)} appears twice`);
    names.add(name);
    found.push([name, info]);
  }
  const dataStart = Math.ceil(cursor.position() / alignment) * alignment;
  const tensors = new Map(
    found.map(([name, info]) => [
      name,
      { ...info, start: dataStart + info.start, end: dataStart + info.end },
    ]),
  );
  checkPlaces(tensors, size, file);
  return { version, metadata, tensors };
}

/** Reads little-endian values one after another. */
interface Cursor {
  readonly file: string;
  position(): number;
  u32(): number;
  /** A 64-bit count of things that take at least `least` bytes each. */
  count(least: number, what: string): number;
  /** A 64-bit number that must be a safe integer. */
  safe(what: string): number;
  text(limit: number, what: string): string;
  number(type: NumberType): number | bigint;
  numbers(type: NumberType, count: number): HostArray;
}

function cursorOf(bytes: Uint8Array, size: number, file: string): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let at = 0;
  const take = (length: number): number => {
    if (at + length > size) {
      throw refuse("truncated", file, `the header needs more than the ${size} bytes of the file`);
    }
    if (at + length > bytes.length) throw new HeaderContinues();
    at += length;
    return at - length;
  };
  const u64 = (what: string): number => {
    const value = view.getBigUint64(take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw refuse("count", file, `${what}: got ${value}, expected less than 2^53`);
    }
    return Number(value);
  };
  const count = (least: number, what: string): number => {
    const value = u64(what);
    if (value * least > size - at) {
      throw refuse("truncated", file, `claims ${value} ${what}, which ${size - at} bytes cannot hold`);
    }
    return value;
  };
  return {
    file,
    position: () => at,
    u32: () => view.getUint32(take(4), true),
    count,
    safe: u64,
    text(limit, what) {
      const length = count(1, `bytes of ${what}`);
      if (length > limit) throw refuse("text", file, `${what} has ${length} bytes, the limit is ${limit}`);
      const start = take(length);
      try {
        return decoder.decode(bytes.subarray(start, start + length));
      } catch (cause) {
        throw new TributaryError("gguf-text", `${file}: ${what} at byte ${start} is not UTF-8`, { cause });
      }
    },
    number: (type) => readNumber(view, take(byteSize(type)), type),
    numbers(type, length) {
      const start = take(length * byteSize(type));
      const values = allocate(type, length);
      new Uint8Array(values.buffer).set(bytes.subarray(start, at));
      return values;
    },
  };
}

function readNumber(view: DataView, at: number, type: NumberType): number | bigint {
  switch (type) {
    case "uint8":
    case "bool":
      return view.getUint8(at);
    case "int8":
      return view.getInt8(at);
    case "uint16":
      return view.getUint16(at, true);
    case "int16":
      return view.getInt16(at, true);
    case "uint32":
      return view.getUint32(at, true);
    case "int32":
      return view.getInt32(at, true);
    case "float32":
      return view.getFloat32(at, true);
    case "float64":
      return view.getFloat64(at, true);
    case "uint64":
      return view.getBigUint64(at, true);
    case "int64":
      return view.getBigInt64(at, true);
  }
}

function readValue(cursor: Cursor, id: number, key: string, budget: { arrays: number }): GgufValue {
  if (id === STRING)
    return { type: "string", value: cursor.text(Number.POSITIVE_INFINITY, `the value of ${quote(key)}`) };
  if (id === ARRAY) return readArray(cursor, key, budget, 1);
  const type = numberTypeOf.get(id);
  if (type === undefined) throw unknownType(cursor, id, key);
  const value = cursor.number(type);
  if (typeof value === "bigint") return { type: type === "int64" ? type : "uint64", value };
  if (type === "int64" || type === "uint64") throw unknownType(cursor, id, key);
  if (type !== "bool") return { type, value };
  if (value > 1) throw refuse("metadata", cursor.file, `${quote(key)} is the byte ${value}, expected 0 or 1`);
  return { type, value: value === 1 };
}

function readArray(cursor: Cursor, key: string, budget: { arrays: number }, depth: number): GgufArray {
  if (depth > MAX_DEPTH || --budget.arrays < 0) {
    throw refuse("metadata", cursor.file, `${quote(key)} has more nested arrays than a header may have`);
  }
  const id = cursor.u32();
  if (id === STRING) {
    const count = cursor.count(8, `strings in ${quote(key)}`);
    const what = `a string of ${quote(key)}`;
    const values: string[] = [];
    for (let i = 0; i < count; i++) values.push(cursor.text(Number.POSITIVE_INFINITY, what));
    return { type: "array", of: "string", values };
  }
  if (id === ARRAY) {
    const count = cursor.count(12, `arrays in ${quote(key)}`);
    const values: GgufArray[] = [];
    for (let i = 0; i < count; i++) values.push(readArray(cursor, key, budget, depth + 1));
    return { type: "array", of: "array", values };
  }
  const of = numberTypeOf.get(id);
  if (of === undefined) throw unknownType(cursor, id, key);
  const count = cursor.count(byteSize(of), `numbers in ${quote(key)}`);
  return { type: "array", of, values: cursor.numbers(of, count) };
}

function unknownType({ file }: Cursor, id: number, key: string): TributaryError {
  return refuse("metadata", file, `${quote(key)} has the value type ${id}, expected 0 to 12`);
}

function readAlignment(metadata: GgufMetadata, file: string): number {
  const alignment = metadataReader(metadata, file).number("general.alignment") ?? DEFAULT_ALIGNMENT;
  const power = Math.log2(alignment);
  if (!Number.isInteger(power) || power < 0 || alignment > MAX_ALIGNMENT) {
    throw refuse(
      "alignment",
      file,
      `has alignment ${alignment}, expected a power of two up to ${MAX_ALIGNMENT}`,
    );
  }
  return alignment;
}

/** A tensor with its place among the data, not yet in the file. */
function readTensorInfo(cursor: Cursor, alignment: number): [string, BlockTensorInfo] {
  const { file } = cursor;
  const name = cursor.text(MAX_NAME, "a tensor name");
  const dims = cursor.u32();
  if (dims > MAX_DIMS) {
    throw refuse("shape", file, `${quote(name)} has ${dims} dimensions, the limit is ${MAX_DIMS}`);
  }
  const inner: number[] = [];
  for (let i = 0; i < dims; i++) inner.push(cursor.safe(`a dimension of ${quote(name)}`));
  const shape = inner.reverse();
  const id = cursor.u32();
  const type = blockTypes.get(id);
  if (type === undefined) {
    const got = unreadTypes.get(id) ?? `the unknown type ${id}`;
    throw refuse(
      "type",
      file,
      `${quote(name)} is stored as ${got}, supported are ${Object.keys(blockTypeIds).join(" ")}`,
    );
  }
  const format = blockFormats[type];
  const values = sizeOf(shape);
  const bytes = (values / format.values) * format.bytes;
  if (!Number.isSafeInteger(values * format.bytes)) {
    throw refuse("shape", file, `${quote(name)} [${shape}] has more values than 2^53 bytes hold`);
  }
  if ((shape.at(-1) ?? 1) % format.values !== 0) {
    throw refuse(
      "shape",
      file,
      `${quote(name)} [${shape}] has rows that are no whole blocks of ${format.values}`,
    );
  }
  const start = cursor.safe(`the offset of ${quote(name)}`);
  if (start % alignment !== 0) {
    throw refuse("offset", file, `${quote(name)} starts at ${start}, expected a multiple of ${alignment}`);
  }
  return [name, { type, shape, start, end: start + bytes }];
}

/** Tensors lie within the file and share no bytes. */
function checkPlaces(tensors: ReadonlyMap<string, BlockTensorInfo>, size: number, file: string): void {
  const sorted = [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let free = 0;
  for (const [name, { start, end }] of sorted) {
    if (end > size) {
      throw refuse(
        "truncated",
        file,
        `${quote(name)} ends at byte ${end}, the file has ${size}; download it again`,
      );
    }
    if (start < free && end > start) {
      throw refuse("offset", file, `${quote(name)} overlaps the tensor before it`);
    }
    free = Math.max(free, end);
  }
}

function refuse(reason: string, file: string, text: string): TributaryError {
  return new TributaryError(`gguf-${reason}`, `${file}: ${text}`);
}
