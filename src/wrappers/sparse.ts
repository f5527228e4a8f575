import type { StateTree, Strategy } from "../federation/strategy.ts";
import { packPlaces, scatter } from "../tensor/places.ts";
import { float32, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { topK } from "../tensor/top-k.ts";
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

/** The k entries of largest magnitude as values in order of place, and the places. */
function topOf(change: Float64Array, share: number): { values: Tensor; places: Tensor } {
  const places = topK(change, kept(change.length, share));
  return {
    values: float32(
      [places.length],
      Float32Array.from(places, (i) => change[i]!),
    ),
    places: packPlaces(places, change.length),
  };
}

function scattered(
  { values, places }: Readonly<Record<string, Tensor>>,
  shape: readonly number[],
): Float64Array {
  if (!values || !places) throw new RangeError("sparse: an update without values or places");
  return scatter(Float64Array.from(values.data, Number), places, sizeOf(shape));
}
