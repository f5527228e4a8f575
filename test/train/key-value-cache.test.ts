import { describe, expect, it } from "vitest";
import type { Params } from "../../src/tensor/params.ts";
import { float32, type Tensor } from "../../src/tensor/tensor.ts";
import { cacheFeeds, openCache } from "../../src/train/key-value-cache.ts";

const size = { layers: 2, keyValueHeads: 3, headDim: 2 };

/** What a pass puts out: number `part.row head token` at each place, the token counted from `from`. */
function present(rows: number, tokens: number, from: number): Tensor {
  const values: number[] = [];
  for (let part = 0; part < 2 * size.layers; part++)
    for (let row = 0; row < rows; row++)
      for (let head = 0; head < size.keyValueHeads; head++)
        for (let t = 0; t < tokens; t++)
          for (let i = 0; i < size.headDim; i++) values.push(numberAt(part, row, head, from + t));
  return float32([2 * size.layers * rows, size.keyValueHeads, tokens, size.headDim], values);
}

const numberAt = (part: number, row: number, head: number, t: number): number =>
  1000 * part + 100 * row + 10 * head + t + 1;

/** The tokens that a head of a row holds, by the first number of each. */
function held(feeds: Params, part: number, row: number, head: number): number[] {
  const { shape, data } = feeds.get(cacheFeeds.part(part >> 1, part % 2 === 0 ? "key" : "value")) ?? {};
  const [, heads = 0, capacity = 0, width = 0] = shape ?? [];
  const start = (row * heads + head) * capacity * width;
  return Array.from({ length: capacity }, (_, t) => Number(data?.[start + t * width]));
}

describe("a cache of keys and values", () => {
  it("puts the tokens of each pass behind those before, also where it has to grow", () => {
    const cache = openCache(size, { rows: 1, expected: 3 });
    cache.append(present(1, 2, 0), [2]);
    expect(held(cache.feeds(), 3, 0, 1)).toEqual([3011, 3012, 0]);
    for (let t = 2; t < 5; t++) cache.append(present(1, 1, t), [1]);
    expect(cache.lengths).toEqual([5]);
    for (const [part, head] of [
      [0, 0],
      [1, 2],
      [3, 1],
    ] as const) {
      const tokens = Array.from({ length: 5 }, (_, t) => numberAt(part, 0, head, t));
      expect(held(cache.feeds(), part, 0, head).slice(0, 5)).toEqual(tokens);
    }
  });

  it("is fed the same arrays from pass to pass", () => {
    const cache = openCache(size, { rows: 1, expected: 4 });
    cache.append(present(1, 2, 0), [2]);
    const before = cache.feeds();
    cache.append(present(1, 1, 2), [1]);
    for (const name of before.keys()) {
      if (name !== cacheFeeds.lengths) expect(cache.feeds().get(name)).toBe(before.get(name));
    }
  });

  it("takes as many tokens of each row as are its own, and keeps the rows that are chosen", () => {
    const cache = openCache(size, { rows: 3, expected: 4 });
    cache.append(present(3, 3, 0), [1, 3, 2]);
    cache.append(present(3, 1, 7), [1, 1, 1]);
    expect(cache.lengths).toEqual([2, 4, 3]);
    expect(held(cache.feeds(), 2, 0, 2)).toEqual([2021, 2028, 0, 0]);
    cache.keep([2, 0]);
    expect(cache.lengths).toEqual([3, 2]);
    expect(held(cache.feeds(), 2, 0, 2)).toEqual([2221, 2222, 2228, 0]);
    expect(held(cache.feeds(), 1, 1, 0)).toEqual([1001, 1008, 0, 0]);
    expect([...(cache.feeds().get(cacheFeeds.lengths)?.data ?? [])]).toEqual([3n, 2n]);
  });
});
