import { byteSize } from "../../tensor/dtype.ts";
import { type BlockType, blockFormats } from "../../tensor/quant/blocks.ts";
import { sizeOf } from "../../tensor/tensor.ts";
import { quote } from "../json.ts";
import { blockTypeIds, DEFAULT_ALIGNMENT, MAGIC } from "./header.ts";
import { ARRAY, type GgufArray, type GgufMetadata, type GgufValue, numberTypes, STRING } from "./metadata.ts";

/** A tensor to write. */
export interface GgufTensor {
  readonly name: string;
  readonly type: BlockType;
  /** Outermost dimension first; the last one holds whole blocks. */
  readonly shape: readonly number[];
  /** The blocks; asked for when their turn comes, so that one tensor is in memory at a time. */
  encode(): Uint8Array;
}

/** What a file holds. */
export interface GgufFile {
  readonly metadata: GgufMetadata;
  readonly tensors: readonly GgufTensor[];
}

/** Bytes of a tensor name that llama.cpp reads, with the zero that it puts at the end. */
const MAX_NAME = 64;

/** The bytes of a file, version 3, piece by piece. */
export async function* ggufPieces({ metadata, tensors }: GgufFile): AsyncGenerator<Uint8Array> {
  const header = writer();
  header.u32(MAGIC);
  header.u32(3);
  header.u64(BigInt(tensors.length));
  header.u64(BigInt(metadata.size));
  for (const [key, value] of metadata) {
    header.text(key);
    header.value(value);
  }
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    if (new TextEncoder().encode(name).length >= MAX_NAME) {
      throw new RangeError(`GGUF: the name ${quote(name)} has ${MAX_NAME} bytes or more`);
    }
    header.text(name);
    header.u32(shape.length);
    for (const dim of [...shape].reverse()) header.u64(BigInt(dim));
    header.u32(blockTypeIds[type]);
    header.u64(BigInt(offset));
    offset += padded(bytesOf(type, shape));
  }
  const bytes = header.bytes();
  yield bytes;
  yield new Uint8Array(padded(bytes.length) - bytes.length);
  for (const { name, type, shape, encode } of tensors) {
    const blocks = encode();
    const expected = bytesOf(type, shape);
    if (blocks.length !== expected) {
      throw new RangeError(
        `GGUF: ${quote(name)} has ${blocks.length} bytes, ${type} [${shape}] needs ${expected}`,
      );
    }
    yield blocks;
    yield new Uint8Array(padded(expected) - expected);
  }
}

function padded(bytes: number): number {
  return Math.ceil(bytes / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT;
}

function bytesOf(type: BlockType, shape: readonly number[]): number {
  return (sizeOf(shape) / blockFormats[type].values) * blockFormats[type].bytes;
}

interface Writer {
  u32(value: number): void;
  u64(value: bigint): void;
  text(value: string): void;
  value(value: GgufValue): void;
  bytes(): Uint8Array;
}

function writer(): Writer {
  let buffer = new Uint8Array(2 ** 16);
  let at = 0;
  const encoder = new TextEncoder();
  /** Room for some bytes, whose place is returned. */
  const room = (length: number): number => {
    if (at + length > buffer.length) {
      const larger = new Uint8Array(2 * (at + length));
      larger.set(buffer.subarray(0, at));
      buffer = larger;
    }
    at += length;
    return at - length;
  };
  const view = (length: number): DataView => {
    const start = room(length);
    return new DataView(buffer.buffer, start, length);
  };
  const u32 = (value: number): void => view(4).setUint32(0, value, true);
  const u64 = (value: bigint): void => view(8).setBigUint64(0, value, true);
  const text = (value: string): void => {
    const bytes = encoder.encode(value);
    u64(BigInt(bytes.length));
    const start = room(bytes.length);
    buffer.set(bytes, start);
  };
  const array = (value: GgufArray): void => {
    u32(value.of === "string" ? STRING : value.of === "array" ? ARRAY : numberTypes[value.of]);
    u64(BigInt(value.values.length));
    if (value.of === "string") value.values.forEach(text);
    else if (value.of === "array") value.values.forEach(array);
    else {
      const { buffer: source, byteOffset, byteLength } = value.values;
      const start = room(byteLength);
      buffer.set(new Uint8Array(source, byteOffset, byteLength), start);
    }
  };
  return {
    u32,
    u64,
    text,
    value(value) {
      if (value.type === "array") {
        u32(ARRAY);
        array(value);
      } else if (value.type === "string") {
        u32(STRING);
        text(value.value);
      } else {
        u32(numberTypes[value.type]);
        putNumber(view(byteSize(value.type)), value);
      }
    },
    bytes: () => buffer.subarray(0, at),
  };
}

function putNumber(view: DataView, value: Exclude<GgufValue, GgufArray | { readonly type: "string" }>): void {
  switch (value.type) {
    case "bool":
      view.setUint8(0, value.value ? 1 : 0);
      break;
    case "uint8":
      view.setUint8(0, value.value);
      break;
    case "int8":
      view.setInt8(0, value.value);
      break;
    case "uint16":
      view.setUint16(0, value.value, true);
      break;
    case "int16":
      view.setInt16(0, value.value, true);
      break;
    case "uint32":
      view.setUint32(0, value.value, true);
      break;
    case "int32":
      view.setInt32(0, value.value, true);
      break;
    case "float32":
      view.setFloat32(0, value.value, true);
      break;
    case "float64":
      view.setFloat64(0, value.value, true);
      break;
    case "uint64":
      view.setBigUint64(0, value.value, true);
      break;
    case "int64":
      view.setBigInt64(0, value.value, true);
      break;
  }
}
