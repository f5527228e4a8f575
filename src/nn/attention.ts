import {
  add,
  and,
  concat,
  equal,
  less,
  lessOrEqual,
  matMul,
  mul,
  not,
  range,
  reshape,
  softmax,
  split,
  sub,
  tanh,
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
  /** int64 [B, T], a number for each of the sequences that share a row; absent where a row is one sequence. */
  readonly segmentIds?: Value | undefined;
  /** Whether token i sees only keys j <= i. */
  readonly causal: boolean;
  /** Keys that a query sees at most, itself included: those with i - window < j. Default: all. */
  readonly window?: number | undefined;
  /** Queries and keys (T). */
  readonly sequence: Dim;
}

/** The mask to add to scores, [B or 1, 1, T or 1, T]; undefined where every query sees every key. */
export function additiveMask({
  attentionMask,
  segmentIds,
  causal,
  window,
  sequence,
}: MaskOptions): Value | undefined {
  let visible: Value | undefined;
  if (causal || window !== undefined) {
    const keys = range(sequence);
    const queries = reshape(keys, [1, 1, sequence, 1]);
    if (causal) visible = lessOrEqual(keys, queries); // [1, 1, T, T]
    if (window !== undefined) {
      const near = less(sub(queries, window), keys);
      visible = visible ? and(visible, near) : near;
    }
  }
  if (attentionMask) {
    const real = not(equal(attentionMask, 0));
    const keys = reshape(real, [dimAt(real.shape, 0), 1, 1, dimAt(real.shape, 1)]); // [B, 1, 1, S]
    visible = visible ? and(keys, visible) : keys;
  }
  if (segmentIds) {
    const [batch, length] = [dimAt(segmentIds.shape, 0), dimAt(segmentIds.shape, 1)];
    const own = equal(reshape(segmentIds, [batch, 1, length, 1]), reshape(segmentIds, [batch, 1, 1, length]));
    visible = visible ? and(own, visible) : own; // [B, 1, T, T]
  }
  return visible && where(visible, 0, MASKED);
}

/** Where the tokens before a pass are kept. */
export interface Places {
  /** Symbol of the places that a row has (C). */
  readonly capacity: string;
  /** How many of its places each row has filled, from the first on, so that a token is at the place of its position. */
  readonly lengths: Value; // int64 [B]
}

/** The mask to add to the scores of the tokens before a pass, [B, 1, T or 1, C]. Positions are int64 [B, T]. */
export function pastMask({ capacity, lengths }: Places, positions: Value, window: number | undefined): Value {
  const [batch, sequence] = [dimAt(positions.shape, 0), dimAt(positions.shape, 1)];
  const places = range(capacity);
  let visible = less(places, reshape(lengths, [batch, 1, 1, 1])); // [B, 1, 1, C]
  if (window !== undefined) {
    const queries = reshape(positions, [batch, 1, sequence, 1]);
    visible = and(visible, less(sub(queries, window), places)); // [B, 1, T, C]
  }
  return where(visible, 0, MASKED);
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

/** Keys and values of the tokens before a pass, and the mask of their scores. */
export interface Past extends KeyValue {
  readonly mask: Value; // [B, 1, T or 1, C]
}

export interface AttentionOptions {
  readonly query: Value; // [B, H, T, d]
  readonly key: Value; // [B, Hkv, S, d]
  readonly value: Value; // [B, Hkv, S, d]
  readonly mask?: Value | undefined; // [B or 1, 1, T or 1, S]
  /** Keys and values that are seen beside. */
  readonly past?: Past | undefined;
  /** Factor of the scores. Default: 1 / sqrt(d). */
  readonly scale?: number | undefined;
  /** Scores s become `softCap * tanh(s / softCap)` before the mask. Default: they stay. */
  readonly softCap?: number | undefined;
}

/**
 * Softmax attention, [B, H, T, d]. Where G query heads share one key/value head, the G*T queries of a head meet its
 * keys in one product, so keys and values are never copied; nor are those of the past, whose scores join the others.
 */
export function attention({ query, key, value, mask, past, scale, softCap }: AttentionOptions): Value {
  const [batch, heads, sequence, headDim] = [0, 1, 2, 3].map((axis) => dimAt(query.shape, axis));
  const keyHeads = dimAt(key.shape, 1);
  if (batch === undefined || sequence === undefined || typeof headDim !== "number") {
    throw new RangeError(`attention: got queries [${query.shape}], expected [B, H, T, d]`);
  }
  const groups = Number(heads) / Number(keyHeads);
  if (!Number.isInteger(groups)) {
    throw new RangeError(`attention: ${heads} query heads cannot share ${keyHeads} key/value heads evenly`);
  }
  const alpha = (scale ?? 1 / Math.sqrt(headDim)) / (softCap ?? 1);
  const grouped = reshape(query, [batch, keyHeads, timesDim(groups, sequence), headDim]);
  const scoresOf = (keys: Value, unseen: Value | undefined): Value => {
    const products = matMul(grouped, keys, { transB: true, alpha }); // [B, Hkv, G*T, S]
    const capped = softCap === undefined ? products : mul(tanh(products), softCap);
    return unseen ? masked(capped, unseen, groups) : capped;
  };
  const scores = scoresOf(key, mask);
  const mixed = past
    ? mixBoth({ own: scores, before: scoresOf(past.key, past.mask) }, value, past.value)
    : matMul(softmax(scores), value);
  return reshape(mixed, query.shape);
}

/** Scores [B, Hkv, G*T, S] under a mask [B or 1, 1, T or 1, S]. */
function masked(scores: Value, mask: Value, groups: number): Value {
  const [batch, keyHeads, , total] = [0, 1, 2, 3].map((axis) => dimAt(scores.shape, axis));
  const sequence = dimAt(mask.shape, 2);
  if (groups === 1 || sequence === 1) return add(scores, mask);
  if (batch === undefined || keyHeads === undefined || total === undefined) return scores;
  const apart = reshape(scores, [batch, keyHeads, groups, sequence, total]);
  return reshape(add(apart, reshape(mask, [dimAt(mask.shape, 0), 1, 1, sequence, total])), scores.shape);
}

/** Values mixed by one softmax over the scores of both. */
function mixBoth(
  { own, before }: { readonly own: Value; readonly before: Value },
  value: Value,
  past: Value,
): Value {
  const [places, present] = [dimAt(before.shape, 3), dimAt(own.shape, 3)];
  const weights = softmax(concat([before, own], 3, `${places} and ${present}`));
  const [ofPast, ofOwn] = split(weights, 3, [places, present]);
  if (!ofPast || !ofOwn) throw new Error("attention: a split without parts");
  return add(matMul(ofPast, past), matMul(ofOwn, value));
}
