import { flattenRows, gemm, reshape, slice, transpose } from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";
import type { Scope } from "./scope.ts";

/** Height and width. */
export type Size = readonly [height: number, width: number];

/**
 * Embeds the patches of images [B, C, height, width] by a convolution whose stride is its kernel [D, C, p, q], written as
 * one product over unfolded patches: [B, patches, D], row by row. What is left at the right and bottom edge is dropped.
 */
export function patchEmbedding(w: Scope, pixels: Value): Value {
  const weight = w.get("weight");
  const [batch, channels] = [dimAt(pixels.shape, 0), dimAt(pixels.shape, 1)];
  const [width, p, q] = [0, 2, 3].map((axis) => Number(dimAt(weight.shape, axis))) as [
    number,
    number,
    number,
  ];
  const [rows, columns] = patchGrid([Number(dimAt(pixels.shape, 2)), Number(dimAt(pixels.shape, 3))], [p, q]);
  const whole = slice(slice(pixels, 2, 0, rows * p), 3, 0, columns * q);
  const split = reshape(whole, [batch, channels, rows, p, columns, q]);
  const inner = Number(channels) * p * q;
  const patches = reshape(transpose(split, [0, 2, 4, 1, 3, 5]), [batch, rows * columns, inner]);
  const embedded = gemm(flattenRows(patches), reshape(weight, [width, inner]), w.get("bias"));
  return reshape(embedded, [batch, rows * columns, width]);
}

/** Whole patches down and across an image. */
export function patchGrid([height, width]: Size, [p, q]: Size): Size {
  return [Math.floor(height / p), Math.floor(width / q)];
}
