import {
  add,
  cast,
  dimSize,
  div,
  flattenRows,
  gather,
  mul,
  range,
  reduceMax,
  reduceSum,
  reshape,
  slice,
  sub,
} from "../graph/ops.ts";
import { dimAt } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";

/** The state of the first place of each row, [B, D] of [B, T, D]. */
export function firstState(states: Value): Value {
  return reshape(slice(states, 1, 0, 1), [dimAt(states.shape, 0), dimAt(states.shape, 2)]);
}

/** The state of the last token of each row that is not padding, [B, D] of [B, T, D]. */
export function lastState(states: Value, attentionMask?: Value): Value {
  const [batch, sequence] = [dimAt(states.shape, 0), dimAt(states.shape, 1)];
  const rows = mul(range(batch), dimSize(sequence)); // first row of each sequence in [B * T]
  const last = attentionMask
    ? reduceMax(mul(attentionMask, range(sequence)), { axes: [1] })
    : sub(dimSize(sequence), 1);
  return gather(flattenRows(states), add(rows, last));
}

/** The mean of the states of each row over its tokens, [B, D] of [B, T, D]. */
export function meanState(states: Value, attentionMask?: Value): Value {
  const [batch, sequence] = [dimAt(states.shape, 0), dimAt(states.shape, 1)];
  const tokens = attentionMask ? cast(attentionMask, "float32") : undefined;
  const weights = tokens ? reshape(tokens, [batch, sequence, 1]) : undefined;
  const sum = reduceSum(weights ? mul(states, weights) : states, { axes: [1] });
  const count = tokens
    ? reduceSum(tokens, { axes: [1], keepDims: true })
    : cast(dimSize(sequence), "float32");
  return div(sum, count);
}
