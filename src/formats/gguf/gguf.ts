import { TributaryError } from "../../errors.ts";
import { type BlockType, blockFormats, decodeBlocks } from "../../tensor/quant/blocks.ts";
import { sizeOf, type Tensor } from "../../tensor/tensor.ts";
import type { ByteSource } from "../byte-source.ts";
import { quote } from "../json.ts";
import { type BlockTensorInfo, type GgufHeader, HeaderContinues, parseHeader } from "./header.ts";
import type { GgufMetadata } from "./metadata.ts";

/** An open GGUF file: the header is read and checked, blocks are read when they are asked for. */
export interface Gguf {
  readonly file: string;
  readonly version: number;
  readonly metadata: GgufMetadata;
  readonly names: readonly string[];
  /** Throws if there is no tensor of that name. */
  info(name: string): BlockTensorInfo;
  /** The stored blocks of the rows from `from` up to, not including, `to`; a row runs along the last dimension. */
  blocks(name: string, from?: number, to?: number): Promise<Uint8Array>;
  /** A tensor decoded to float32. */
  tensor(name: string): Promise<Tensor<"float32">>;
}

/** Bytes of the header that are read at first; four times more each time that it goes on. */
const FIRST_READ = 2 ** 20;
const MAX_HEADER = 64 * 2 ** 20;
/** Bytes of blocks that are decoded at once. */
const CHUNK = 4 * 2 ** 20;

/** Opens a GGUF file of any size, version 2 or 3; `file` names it in messages. */
export async function openGguf(source: ByteSource, file = "gguf"): Promise<Gguf> {
  const { version, metadata, tensors } = await readHeader(source, file);
  const info = (name: string): BlockTensorInfo => {
    const found = tensors.get(name);
    if (found === undefined) {
      throw new TributaryError(
        "tensor-missing",
        `${file}: no tensor ${quote(name)}; it has ${tensors.size} tensors`,
      );
    }
    return found;
  };
  const blocks = (name: string, from = 0, to?: number): Promise<Uint8Array> => {
    const { type, shape, start, end } = info(name);
    const row = rowBytes(type, shape);
    return source.read(start + from * row, to === undefined ? end : start + to * row);
  };
  return {
    file,
    version,
    metadata,
    names: [...tensors.keys()],
    info,
    blocks,
    tensor(name) {
      const { type, shape } = info(name);
      return decodeRows(type, shape, (from, to) => blocks(name, from, to));
    },
  };
}

/** Whether the name of a file is that of a GGUF file. */
export function isGgufName(name: string): boolean {
  return /\.gguf$/i.test(name);
}

/** Decodes a tensor some rows at a time, so that only its floats are in memory as a whole. `step` divides each range. */
export async function decodeRows(
  type: BlockType,
  shape: readonly number[],
  read: (from: number, to: number) => Promise<Uint8Array>,
  step = 1,
): Promise<Tensor<"float32">> {
  const width = shape.at(-1) ?? 1;
  const data = new Float32Array(sizeOf(shape));
  const rows = width === 0 ? 0 : data.length / width;
  const together = step * Math.max(1, Math.floor(CHUNK / rowBytes(type, shape) / step));
  for (let from = 0; from < rows; from += together) {
    const to = Math.min(rows, from + together);
    decodeBlocks(type, await read(from, to), data.subarray(from * width, to * width));
  }
  return { dtype: "float32", shape, data };
}

/** Bytes of one row of a tensor. */
export function rowBytes(type: BlockType, shape: readonly number[]): number {
  return ((shape.at(-1) ?? 1) / blockFormats[type].values) * blockFormats[type].bytes;
}

async function readHeader(source: ByteSource, file: string): Promise<GgufHeader> {
  for (let length = FIRST_READ; ; length *= 4) {
    const bytes = await source.read(0, Math.min(length, MAX_HEADER, source.size));
    try {
      return parseHeader(bytes, source.size, file);
    } catch (error) {
      if (!(error instanceof HeaderContinues)) throw error;
      if (length >= MAX_HEADER) {
        throw new TributaryError("gguf-header", `${file}: the header has more than ${MAX_HEADER} bytes`, {
          cause: error,
        });
      }
    }
  }
}
