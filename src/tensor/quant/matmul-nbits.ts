import { convert, hasDtype, widen } from "../convert.ts";
import { float32, type Tensor, tensor } from "../tensor.ts";
import type { BlockType } from "./blocks.ts";
import { halvesAt } from "./halves.ts";

/** Numbers of a row that share a scale and an offset. */
const BLOCK = 32;
const BYTES = BLOCK / 2;

/** Bits of a number in blocks that are held as they are. */
export type BlockBits = 4 | 8;

/**
 * A matrix [out, in] in blocks. Of four bits: number k of block j in row i is `scales[i, j] * level - offsets[i, j]`; levels
 * lie in order, each even one in the low half of its byte, as ONNX Runtime's MatMulNBits has them; no scale is 0. Of eight
 * bits: it is `scales[i, j] * (level - 128)`, without offsets.
 */
export interface BlockMatrix {
  readonly levels: Tensor; // uint8 [out, in / 32, 16], or [out, in / 32, 32] without offsets
  readonly scales: Tensor; // float16 [out, in / 32]
  readonly offsets?: Tensor | undefined; // float16 [out, in / 32]
}

/** The names under which the parts of a matrix are fed. */
export function blockNames(name: string): {
  readonly levels: string;
  readonly scales: string;
  readonly offsets: string;
} {
  return { levels: `${name}/levels`, scales: `${name}/scales`, offsets: `${name}/offsets` };
}

/** Whether the rows of a matrix are whole blocks. */
export function fitsBlocks(shape: readonly number[]): boolean {
  const [, from = 0] = shape;
  return shape.length === 2 && from > 0 && from % BLOCK === 0;
}

/** A format that blocks are taken from as they are. */
type RepackedType = keyof typeof repacked;

/** Bits of a number and bytes of a block in these formats. */
const repacked = {
  Q4_0: { bits: 4, size: 18 },
  Q4_1: { bits: 4, size: 20 },
  Q8_0: { bits: 8, size: 34 },
} as const;

export function isRepacked(type: BlockType): type is RepackedType {
  return type in repacked;
}

/** Bits of a number where blocks of a format are taken as they are. */
export function repackedBits(type: BlockType): BlockBits | undefined {
  return isRepacked(type) ? repacked[type].bits : undefined;
}

/** The blocks of a GGML matrix, number for number. */
export function repackedBlocks(
  type: RepackedType,
  bytes: Uint8Array,
  [out = 0, from = 0]: readonly number[],
): BlockMatrix {
  const { size } = repacked[type];
  const count = (out * from) / BLOCK;
  if (bytes.length !== count * size)
    throw new RangeError(`repackedBlocks: got ${bytes.length} bytes of ${type} for [${out}, ${from}]`);
  if (type === "Q8_0") return eightBitBlocks(bytes, [out, from / BLOCK]);
  const scales = halvesAt(bytes, size, 0, count);
  // Q4_0 has its zero at level 8; Q4_1 stores the least number of a block.
  const offsets =
    type === "Q4_0"
      ? scales.map((scale) => 8 * scale)
      : halvesAt(bytes, size, 2, count).map((least) => -least);
  const levels = new Uint8Array(count * BYTES);
  for (let block = 0; block < count; block++) {
    const at = block * BYTES;
    if (scales[block] === 0) {
      flatten(scales, offsets, block);
      continue;
    }
    // GGML has value i in the low half of byte i, and value i + 16 in its high half.
    const source = block * size + size - BYTES;
    for (let i = 0; i < BYTES / 2; i++) {
      const [a, b] = [bytes[source + 2 * i]!, bytes[source + 2 * i + 1]!];
      levels[at + i] = (a & 15) | ((b & 15) << 4);
      levels[at + BYTES / 2 + i] = (a >> 4) | (b & 0xf0);
    }
  }
  return blockMatrix(out, from, levels, scales, offsets);
}

/** Blocks of a float16 scale and 32 signed bytes. */
function eightBitBlocks(bytes: Uint8Array, shape: readonly [out: number, blocks: number]): BlockMatrix {
  const { size } = repacked.Q8_0;
  const count = shape[0] * shape[1];
  const levels = new Uint8Array(count * BLOCK);
  const scales = new Uint16Array(count);
  const from = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block < count; block++) {
    scales[block] = from.getUint16(block * size, true);
    // A signed byte and 128 differ in the highest bit alone from their sum.
    for (let i = 0; i < BLOCK; i++) levels[block * BLOCK + i] = bytes[block * size + 2 + i]! ^ 128;
  }
  return {
    levels: tensor("uint8", [...shape, BLOCK], levels),
    scales: tensor("float16", [...shape], scales),
  };
}

/** A block of equal numbers at level 0 of a scale that can be divided by. */
function flatten(scales: Float32Array, offsets: Float32Array, block: number): void {
  scales[block] = offsets[block] === 0 ? 1 : offsets[block]!;
}

/** Rows that are rounded at once hold about this many numbers, so that no copy of the whole is made. */
const AT_ONCE = 2 ** 20;

/** Rounds a matrix to blocks: from the least number of each to its greatest in 15 equal steps, each number to the nearest. */
export function quantizedBlocks(matrix: Tensor): BlockMatrix {
  const { dtype, shape, data } = matrix;
  const [out = 0, from = 0] = shape;
  if (!fitsBlocks(shape))
    throw new RangeError(`quantizedBlocks: got [${shape}], expected rows of whole blocks of ${BLOCK}`);
  const levels = new Uint8Array(data.length / 2);
  const scales = new Float32Array(data.length / BLOCK);
  const offsets = new Float32Array(data.length / BLOCK);
  const rows = Math.max(1, Math.floor(AT_ONCE / from));
  for (let row = 0; row < out; row += rows) {
    const [start, end] = [row * from, Math.min(out, row + rows) * from];
    const part = widen({ dtype, shape: [end - start], data: data.subarray(start, end) }).data;
    const blocks = [start / BLOCK, end / BLOCK] as const;
    roundBlocks(part, {
      levels: levels.subarray(start / 2, end / 2),
      scales: scales.subarray(...blocks),
      offsets: offsets.subarray(...blocks),
    });
  }
  return blockMatrix(out, from, levels, scales, offsets);
}

/** Rounds whole blocks. */
function roundBlocks(
  values: Float32Array,
  {
    levels,
    scales,
    offsets,
  }: { readonly levels: Uint8Array; readonly scales: Float32Array; readonly offsets: Float32Array },
): void {
  for (let block = 0; block < scales.length; block++) {
    let low = values[block * BLOCK]!;
    let high = low;
    for (let i = block * BLOCK + 1; i < (block + 1) * BLOCK; i++) {
      const value = values[i]!;
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    offsets[block] = -low;
    scales[block] = (high - low) / 15;
  }
  // The numbers that will be multiplied with are those that float16 has.
  offsets.set(widen(halved(offsets)).data);
  scales.set(widen(halved(scales)).data);
  for (let block = 0; block < scales.length; block++) {
    if (scales[block] === 0) {
      flatten(scales, offsets, block);
      continue;
    }
    const inverse = 1 / scales[block]!;
    const offset = offsets[block]!;
    for (let i = 0; i < BYTES; i++) {
      const at = block * BLOCK + 2 * i;
      levels[block * BYTES + i] =
        nearestLevel((values[at]! + offset) * inverse) |
        (nearestLevel((values[at + 1]! + offset) * inverse) << 4);
    }
  }
}

function nearestLevel(x: number): number {
  const level = Math.floor(x + 0.5);
  return Math.max(0, Math.min(15, level));
}

function halved(values: Float32Array): Tensor<"float16"> {
  return convert(float32([values.length], values), "float16");
}

function blockMatrix(
  out: number,
  from: number,
  levels: Uint8Array,
  scales: Float32Array,
  offsets: Float32Array,
): BlockMatrix {
  const shape = [out, from / BLOCK];
  return {
    levels: tensor("uint8", [...shape, BYTES], levels),
    scales: tensor("float16", shape, halved(scales).data),
    offsets: tensor("float16", shape, halved(offsets).data),
  };
}

/** The matrix in float32. */
export function dequantizedBlocks({ levels, scales, offsets }: BlockMatrix): Tensor<"float32"> {
  const [out = 0, blocks = 0] = scales.shape;
  const values = new Float32Array(out * blocks * BLOCK);
  const scale = widen(scales).data;
  if (!hasDtype(levels, "uint8"))
    throw new TypeError(`dequantizedBlocks: got levels in ${levels.dtype}, expected uint8`);
  if (!offsets) {
    for (let i = 0; i < values.length; i++) values[i] = scale[i >> 5]! * (levels.data[i]! - 128);
    return float32([out, blocks * BLOCK], values);
  }
  const offset = widen(offsets).data;
  for (let block = 0; block < out * blocks; block++) {
    const [s, o] = [scale[block]!, offset[block]!];
    for (let i = 0; i < BYTES; i++) {
      const byte = levels.data[block * BYTES + i]!;
      values[block * BLOCK + 2 * i] = s * (byte & 15) - o;
      values[block * BLOCK + 2 * i + 1] = s * (byte >> 4) - o;
    }
  }
  return float32([out, blocks * BLOCK], values);
}
