import type { CacheSize } from "../models/model.ts";
import type { Params } from "../tensor/params.ts";
import { type Tensor, tensor } from "../tensor/tensor.ts";

/** Names of the graph inputs that hold a cache. */
export const cacheFeeds = {
  part: (layer: number, which: "key" | "value"): string => `past/${layer}/${which}`,
  lengths: "past_lengths",
} as const;

/** Keys and values of the tokens so far. It owns its arrays: a pass reads them where they are, and what it adds is written there. */
export interface KeyValueCache {
  /** Tokens of each row. */
  readonly lengths: readonly number[];
  /** The feeds of a pass that adds as many tokens to a row. */
  feeds(): Params;
  /** Takes the keys and values of a pass, [2 * layers * rows, heads, tokens, d]: the first `counts[i]` tokens of row i. */
  append(present: Tensor, counts: readonly number[]): void;
  /** Keeps some of the rows, in their order. */
  keep(rows: readonly number[]): void;
}

/** Places are added by this many at least, and by half of what there is. */
const GROWTH = 64;

/** An empty cache of some rows. `expected` tokens find room without a copy. */
export function openCache(
  { layers, keyValueHeads, headDim }: CacheSize,
  { rows, expected }: { readonly rows: number; readonly expected: number },
): KeyValueCache {
  const names = Array.from({ length: layers }, (_, i) =>
    (["key", "value"] as const).map((which) => cacheFeeds.part(i, which)),
  ).flat();
  let lengths: readonly number[] = new Array<number>(rows).fill(0);
  let capacity = 0;
  let held: readonly Float32Array<ArrayBuffer>[] = names.map(() => new Float32Array(0));
  let tensors: Params = wrapped();

  function wrapped(): Params {
    const shape = [lengths.length, keyValueHeads, capacity, headDim];
    return new Map(names.map((name, i) => [name, tensor("float32", shape, held[i] ?? new Float32Array(0))]));
  }

  /** New arrays of `places` places for some rows, with what these hold. */
  function move(kept: readonly number[], places: number): void {
    held = held.map((old) => {
      const own = new Float32Array(kept.length * keyValueHeads * places * headDim);
      kept.forEach((row, i) => {
        const used = (lengths[row] ?? 0) * headDim;
        for (let head = 0; head < keyValueHeads; head++) {
          const from = (row * keyValueHeads + head) * capacity * headDim;
          own.set(old.subarray(from, from + used), (i * keyValueHeads + head) * places * headDim);
        }
      });
      return own;
    });
    lengths = kept.map((row) => lengths[row] ?? 0);
    capacity = places;
    tensors = wrapped();
  }

  const all = (): number[] => lengths.map((_, row) => row);
  return {
    get lengths() {
      return lengths;
    },
    feeds: () =>
      new Map([
        ...tensors,
        [cacheFeeds.lengths, tensor("int64", [lengths.length], BigInt64Array.from(lengths, BigInt))],
      ]),
    append(present, counts) {
      const { data } = present;
      const tokens = present.shape[2] ?? 0;
      if (!(data instanceof Float32Array))
        throw new TypeError(`cache: got keys and values in ${present.dtype}, expected float32`);
      const needed = lengths.reduce((most, length, row) => Math.max(most, length + (counts[row] ?? 0)), 0);
      if (needed > capacity) {
        const room = capacity === 0 ? expected : capacity + Math.max(GROWTH, capacity >> 1);
        move(all(), Math.max(needed, room));
      }
      const rowCount = lengths.length;
      held.forEach((own, part) => {
        for (let row = 0; row < rowCount; row++) {
          const size = (counts[row] ?? 0) * headDim;
          for (let head = 0; head < keyValueHeads; head++) {
            const from = ((part * rowCount + row) * keyValueHeads + head) * tokens * headDim;
            const to = ((row * keyValueHeads + head) * capacity + (lengths[row] ?? 0)) * headDim;
            own.set(data.subarray(from, from + size), to);
          }
        }
      });
      lengths = lengths.map((length, row) => length + (counts[row] ?? 0));
    },
    keep: (rows) => move(rows, capacity),
  };
}
