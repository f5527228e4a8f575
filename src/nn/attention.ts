import {
  add,
  and,
  concat,
  dimSize,
  equal,
  lessOrEqual,
  matMul,
  not,
  range,
  reshape,
  softmax,
  transpose,
  where,
} from "../graph/ops.ts";
import { type Dim, dimAt, timesDim } from "../graph/shape.ts";
import type { Value } from "../graph/value.ts";

/** Keys and values of the tokens so far, [B, Hkv, S, d]. */
export interface KeyValue {
  readonly key: Value;
  readonly value: Value;
}

/**
 * What a masked score is lowered by: scores of real models vanish beside it in float32, and a row that is masked
 * everywhere stays finite, where infinities would give NaN.
 */
const MASKED = -1e30;

export interface MaskOptions {
  /** int64 [B, S], 1 for tokens and 0 for padding; absent where nothing is padded. */
  readonly attentionMask?: Value | undefined;
  /** Whether token i sees only keys j <= i. */
  readonly causal: boolean;
  /** Queries (T). */
  readonly sequence: Dim;
  /** Keys (S): past and present tokens. Default: as many as queries. */
  readonly total?: Dim;
  /** Tokens before the first query. Default: 0. */
  readonly past?: Dim;
}

/** The mask to add to scores, [B or 1, 1, T or 1, S]; undefined where every query sees every key. */
export function additiveMask({
  attentionMask,
  causal,
  sequence,
  total = sequence,
  past = 0,
}: MaskOptions): Value | undefined {
  let visible: Value | undefined;
  if (causal) {
    const queries = past === 0 ? range(sequence) : add(range(sequence), dimSize(past));
    visible = lessOrEqual(range(total), reshape(queries, [sequence, 1])); // [T, S]
  }
  if (attentionMask) {
    const real = not(equal(attentionMask, 0));
    const keys = reshape(real, [dimAt(real.shape, 0), 1, 1, dimAt(real.shape, 1)]); // [B, 1, 1, S]
    visible = visible ? and(keys, visible) : keys;
  }
  return visible && where(visible, 0, MASKED);
}

/** Splits [B, T, heads * d] into [B, heads, T, d]. */
export function splitHeads(x: Value, heads: number): Value {
  const [batch, sequence, width] = [dimAt(x.shape, 0), dimAt(x.shape, 1), dimAt(x.shape, 2)];
  return transpose(reshape(x, [batch, sequence, heads, Number(width) / heads]), [0, 2, 1, 3]);
}

/** Joins [B, heads, T, d] into [B, T, heads * d]. */
export function joinHeads(x: Value): Value {
  const [batch, heads, sequence, headDim] = [0, 1, 2, 3].map((axis) => dimAt(x.shape, axis));
  if (batch === undefined || sequence === undefined)
    throw new RangeError(`joinHeads: got [${x.shape}], expected 4 axes`);
  return reshape(transpose(x, [0, 2, 1, 3]), [batch, sequence, Number(heads) * Number(headDim)]);
}

/** Past keys and values followed by the present ones, [B, Hkv, total, d]. */
export function extend(past: KeyValue, present: KeyValue, total: Dim): KeyValue {
  return {
    key: concat([past.key, present.key], 2, total),
    value: concat([past.value, present.value], 2, total),
  };
}

export interface AttentionOptions {
  readonly query: Value; // [B, H, T, d]
  readonly key: Value; // [B, Hkv, S, d]
  readonly value: Value; // [B, Hkv, S, d]
  readonly mask?: Value | undefined; // [B or 1, 1, T or 1, S]
  /** Factor of the scores. Default: 1 / sqrt(d). */
  readonly scale?: number;
}

/**
 * Softmax attention, [B, H, T, d]. Where G query heads share one key/value head, the G*T queries of a head meet its
 * keys in one product, so keys and values are never copied.
 */
export function attention({ query, key, value, mask, scale }: AttentionOptions): Value {
  const [batch, heads, sequence, headDim] = [0, 1, 2, 3].map((axis) => dimAt(query.shape, axis));
  const [keyHeads, total] = [dimAt(key.shape, 1), dimAt(key.shape, 2)];
  if (batch === undefined || sequence === undefined || typeof headDim !== "number") {
    throw new RangeError(`attention: got queries [${query.shape}], expected [B, H, T, d]`);
  }
  const groups = Number(heads) / Number(keyHeads);
  if (!Number.isInteger(groups)) {
    throw new RangeError(`attention: ${heads} query heads cannot share ${keyHeads} key/value heads evenly`);
  }
  const alpha = scale ?? 1 / Math.sqrt(headDim);
  if (groups === 1) {
    const scores = matMul(query, key, { transB: true, alpha }); // [B, H, T, S]
    return matMul(softmax(mask ? add(scores, mask) : scores), value);
  }
  const grouped = reshape(query, [batch, keyHeads, timesDim(groups, sequence), headDim]);
  let scores = matMul(grouped, key, { transB: true, alpha }); // [B, Hkv, G*T, S]
  if (mask) {
    const apart = reshape(scores, [batch, keyHeads, groups, sequence, total]);
    const shared = reshape(mask, [dimAt(mask.shape, 0), 1, 1, dimAt(mask.shape, 2), total]);
    scores = reshape(add(apart, shared), scores.shape);
  }
  return reshape(matMul(softmax(scores), value), query.shape);
}
