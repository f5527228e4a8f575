import type { Params } from "../../src/tensor/params.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";

const IGNORED = -100;

/** The feeds of labels [B, T] of a causal batch: rows of [B * T] whose next token is labelled, and those tokens. */
export function collateLabels(labels: Tensor): Params {
  const length = labels.shape[1] ?? 0;
  const positions: bigint[] = [];
  const next: bigint[] = [];
  Array.from(labels.data, Number).forEach((label, i) => {
    if (i % length === 0 || label === IGNORED) return;
    positions.push(BigInt(i - 1));
    next.push(BigInt(label));
  });
  return new Map([
    ["label_positions", tensor("int64", [positions.length], BigInt64Array.from(positions))],
    ["labels", tensor("int64", [next.length], BigInt64Array.from(next))],
  ]);
}
