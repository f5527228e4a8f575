import type { StateTree, Strategy } from "../federation/strategy.ts";
import { float32, type Tensor, tensor } from "../tensor/tensor.ts";
import { packed } from "./packed.ts";

/** Options of sparse updates. */
export interface SparseOptions {
  /** Share of the numbers of each tensor that is sent, at least one. Default: 0.05. */
  readonly share?: number;
  /** Whether a client adds what was not sent to its next change. Default: true. */
  readonly errorFeedback?: boolean;
}

/**
 * Sparse updates: of each tensor clients send the changes of largest magnitude and where they are, and keep the rest for
 * the next round. A tensor that a client did not receive travels whole.
 *
 * Stich et al., NeurIPS 2018, Algorithm 1. https://arxiv.org/abs/1809.07599
 */
export function sparse<State extends StateTree>(
  inner: Strategy<State>,
  { share = 0.05, errorFeedback = true }: SparseOptions = {},
): Strategy<State> {
  if (!(share > 0 && share <= 1))
    throw new RangeError(`sparse: share is ${share}, expected more than 0 and at most 1`);
  return packed(
    inner,
    {
      packsValues: false,
      pack: ({ data }) => topOf(Float64Array.from(data, Number), share),
      unpack: scattered,
    },
    {
      tag: "sparse",
      suffix: `the largest ${Number((100 * share).toPrecision(3))} % of changes`,
      errorFeedback,
    },
  );
}

/** Entries of a tensor of `size` that are sent. */
export function kept(size: number, share: number): number {
  return size === 0 ? 0 : Math.max(1, Math.min(size, Math.round(share * size)));
}

/** The k entries of largest magnitude, of equals the first ones, as values in order of place and the places. */
function topOf(change: Float64Array, share: number): { values: Tensor; places: Tensor } {
  const size = change.length;
  const k = kept(size, share);
  const magnitudes = Float64Array.from(change, Math.abs).sort();
  const threshold = magnitudes[size - k] ?? 0;
  let equal = k; // entries at the threshold that still fit
  for (let i = size - 1; i >= 0 && magnitudes[i]! > threshold; i--) equal--;
  const places = new Float64Array(k);
  let n = 0;
  for (let i = 0; i < size && n < k; i++) {
    const magnitude = Math.abs(change[i]!);
    if (!(magnitude > threshold) && !(magnitude === threshold && equal-- > 0)) continue;
    places[n++] = i;
  }
  return {
    values: float32(
      [k],
      Float32Array.from(places, (i) => change[i]!),
    ),
    places: placesOf(places, size),
  };
}

/** Places as 16 or 32 bits each, or one bit an entry of the tensor where that is shorter. */
function placesOf(places: Float64Array, size: number): Tensor {
  const bytes = size <= 2 ** 16 ? 2 : 4;
  if (Math.ceil(size / 8) < bytes * places.length) {
    const bits = new Uint8Array(Math.ceil(size / 8));
    for (const i of places) bits[i >> 3] = bits[i >> 3]! | (1 << (i & 7));
    return tensor("uint8", [bits.length], bits);
  }
  return bytes === 2
    ? tensor("uint16", [places.length], Uint16Array.from(places))
    : tensor("uint32", [places.length], Uint32Array.from(places));
}

/** The values at their places, 0 elsewhere. */
function scattered(
  { values, places }: Readonly<Record<string, Tensor>>,
  shape: readonly number[],
): Float64Array {
  if (!values || !places) throw new RangeError("sparse: an update without values or places");
  const change = new Float64Array(shape.reduce((a, b) => a * b, 1));
  if (places.dtype !== "uint8") {
    places.data.forEach((place: number | bigint, n: number) => {
      change[Number(place)] = Number(values.data[n]);
    });
    return change;
  }
  let n = 0;
  for (let i = 0; i < change.length; i++) {
    if ((Number(places.data[i >> 3]) >> (i & 7)) & 1) change[i] = Number(values.data[n++]);
  }
  return change;
}
