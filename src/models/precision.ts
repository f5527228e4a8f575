import type { WeightSpec } from "../nn/scope.ts";
import { widen } from "../tensor/convert.ts";
import type { Params } from "../tensor/params.ts";
import type { BlockType } from "../tensor/quant/blocks.ts";
import {
  type BlockMatrix,
  blockNames,
  dequantizedBlocks,
  fitsBlocks,
  repackedBits,
} from "../tensor/quant/matmul-nbits.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { ModelParameter } from "./model.ts";
import type { TaskModel } from "./task.ts";

/**
 * How the base weights are held in memory. "stored": matrices of 16-bit floats and of eight-bit blocks, and four-bit blocks of
 * linear layers, as the checkpoint has them. "4bit": the matrices of linear layers in blocks of four bits; embeddings and heads as in "stored".
 * Everything else is float32, and every product is computed in float32.
 */
export type BasePrecision = (typeof basePrecisions)[number];

export const basePrecisions: readonly ["float32", "stored", "4bit"] = ["float32", "stored", "4bit"];

/** How a checkpoint stores a tensor. */
export type StoredType = "float16" | "bfloat16" | BlockType | "other";

/** How a parameter is held. */
export function heldSpec(
  { shape, kind, head = false, transposed = false }: ModelParameter,
  stored: StoredType,
  precision: BasePrecision,
): WeightSpec {
  const matrix = shape.length === 2 && (kind === "linear" || kind === "embedding");
  if (precision === "float32" || !matrix) return { dtype: "float32", shape };
  const storedBits = isBlockType(stored) ? repackedBits(stored) : undefined;
  if (fitsBlocks(shape)) {
    const isLayer = kind === "linear" && !head;
    if (isLayer && (precision === "4bit" || storedBits === 4))
      return { dtype: "float32", shape, blockBits: 4 };
    if (storedBits === 8 && !transposed) return { dtype: "float32", shape, blockBits: 8 };
  }
  if (transposed) return { dtype: "float32", shape };
  if (stored === "float16" || stored === "F16") return { dtype: "float16", shape };
  if (stored === "bfloat16" || stored === "BF16") return { dtype: "bfloat16", shape };
  return { dtype: "float32", shape };
}

function isBlockType(stored: StoredType): stored is BlockType {
  return stored !== "float16" && stored !== "bfloat16" && stored !== "other";
}

/** Bytes in which a parameter is held. */
export function heldBytes({ dtype, shape, blockBits }: WeightSpec): number {
  const size = shape.reduce((product, dim) => product * dim, 1);
  // Two float16 numbers for 32 of four bits, one for 32 of eight.
  if (blockBits === 4) return size / 2 + (2 * 2 * size) / 32;
  if (blockBits === 8) return size + (2 * size) / 32;
  return size * (dtype === "float32" ? 4 : 2);
}

/** Bytes in which the base weights of a model are held. */
export function weightBytes({ model, config, task, held }: TaskModel): number {
  return [...model.parameters(config, task)].reduce(
    (sum, [name, { shape }]) => sum + heldBytes(held?.get(name) ?? { dtype: "float32", shape }),
    0,
  );
}

/** The tensors that hold a matrix, by the names under which they are fed. */
export function blockParams(name: string, { levels, scales, offsets }: BlockMatrix): [string, Tensor][] {
  const names = blockNames(name);
  return [
    [names.levels, levels],
    [names.scales, scales],
    ...(offsets ? [[names.offsets, offsets] as [string, Tensor]] : []),
  ];
}

/** All tensors of a model in float32, from weights as they are held. */
export function floatWeights(weights: Params, names: Iterable<string>): Params {
  const floats = new Map<string, Tensor>();
  for (const name of names) {
    const value = floatWeight(weights, name);
    if (value) floats.set(name, value);
  }
  return floats;
}

/** A base tensor in float32, from weights as they are held; undefined where there is none. */
export function floatWeight(weights: Params, name: string): Tensor | undefined {
  const whole = weights.get(name);
  if (whole) return whole.dtype === "float16" || whole.dtype === "bfloat16" ? widen(whole) : whole;
  const names = blockNames(name);
  const [levels, scales] = [weights.get(names.levels), weights.get(names.scales)];
  return levels && scales && dequantizedBlocks({ levels, scales, offsets: weights.get(names.offsets) });
}
