import { describe, expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { additiveMask, attention, pastMask } from "../../src/nn/attention.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { evaluate, farthest } from "./evaluate.ts";

/** C places of a cache, then T tokens of a pass. */
const [B, H, Hkv, C, T, d] = [2, 6, 2, 4, 3, 4];
const S = C + T;

function normal(name: string, shape: readonly number[]): Tensor<"float32"> {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 3, purpose: name }).fillNormal(values, 0, 1);
  return float32(shape, values);
}

const int64 = (shape: readonly number[], values: readonly number[]): Tensor<"int64"> =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));

/** Some keys or values of each head. */
function part({ data }: Tensor, from: number, to: number): Tensor {
  const kept = Array.from({ length: B * Hkv }, (_, i) =>
    Array.from(data.slice((i * S + from) * d, (i * S + to) * d), Number),
  );
  return float32([B, Hkv, to - from, d], kept.flat());
}

/** Attention by its definition in float64, head by head. */
function reference(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  visible: (b: number, t: number, s: number) => boolean,
  score: (dot: number) => number = (dot) => dot / Math.sqrt(d),
): number[] {
  const out: number[] = [];
  const at = (x: Tensor, ...i: number[]): number =>
    Number(x.data[i.reduce((flat, index, axis) => flat * (x.shape[axis] ?? 1) + index, 0)]);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const g = Math.floor(h / (H / Hkv));
      for (let t = 0; t < T; t++) {
        const weights = Array.from({ length: S }, (_, s) => {
          let dot = 0;
          for (let i = 0; i < d; i++) dot += at(q, b, h, t, i) * at(k, b, g, s, i);
          return visible(b, t, s) ? Math.exp(score(dot)) : 0;
        });
        const sum = weights.reduce((x, y) => x + y, 0);
        for (let i = 0; i < d; i++) {
          out.push(weights.reduce((x, weight, s) => x + (weight / sum) * at(v, b, g, s, i), 0));
        }
      }
    }
  }
  return out;
}

describe("attention", () => {
  const [q, k, v] = [
    normal("q", [B, H, T, d]),
    normal("k", [B, Hkv, S, d]),
    normal("v", [B, Hkv, S, d]),
  ] as const;
  const lengths = [3, 2];
  const feeds = new Map<string, Tensor>([
    ["q", q],
    ["k", part(k, C, S)],
    ["v", part(v, C, S)],
    ["pastKey", part(k, 0, C)],
    ["pastValue", part(v, 0, C)],
    ["lengths", int64([B], lengths)],
    [
      "positions",
      int64(
        [B, T],
        lengths.flatMap((length) => [length, length + 1, length + 2]),
      ),
    ],
    ["mask", int64([B, T], [1, 1, 1, 0, 1, 1])],
  ]);
  const value = (name: string, heads: number, rows: string) =>
    input(name, "float32", ["batch", heads, rows, d]);
  const operands = {
    query: value("q", H, "sequence"),
    key: value("k", Hkv, "sequence"),
    value: value("v", Hkv, "sequence"),
  };
  const places = { capacity: "capacity", lengths: input("lengths", "int64", ["batch"]) };
  const positions = input("positions", "int64", ["batch", "sequence"]);
  const past = (window?: number) => ({
    key: value("pastKey", Hkv, "capacity"),
    value: value("pastValue", Hkv, "capacity"),
    mask: pastMask(places, positions, window),
  });
  /** Position of a key, below 0 where its place is not filled. */
  const positionOf = (b: number, s: number): number => {
    const length = lengths[b] ?? 0;
    if (s < C) return s < length ? s : -1;
    return length + s - C;
  };
  const isBefore = (b: number, t: number, s: number, window = S): boolean => {
    const [key, query] = [positionOf(b, s), (lengths[b] ?? 0) + t];
    return key >= 0 && key <= query && key > query - window;
  };

  it("equals the definition where query heads share key/value heads behind a padding mask", async () => {
    const attentionMask = input("mask", "int64", ["batch", "sequence"]);
    const mask = additiveMask({ attentionMask, causal: true, sequence: "sequence" });
    const got = await evaluate({ output: attention({ ...operands, mask }) }, feeds);
    const hidden = (b: number, s: number): boolean => s < C || (b === 1 && s === C);
    const expected = reference(q, k, v, (b, t, s) => s <= C + t && !hidden(b, s));
    const rows = T * d;
    // The first token of the second row sees nothing: any finite numbers will do.
    const seen = (_: number, i: number): boolean => i < B * H * rows * 0.5 || i % rows >= d;
    expect(farthest((got.output ?? []).filter(seen), expected.filter(seen))).toBeLessThan(1e-6);
  });

  it("equals the definition over rows of a cache that are not filled to the same place", async () => {
    const mask = additiveMask({ causal: true, sequence: "sequence" });
    const got = await evaluate({ output: attention({ ...operands, mask, past: past() }) }, feeds);
    const expected = reference(q, k, v, isBefore);
    expect(farthest(got.output ?? [], expected)).toBeLessThan(1e-6);
  });

  it("sees a window of keys, its own among them, with bounded scores", async () => {
    const window = 3;
    const mask = additiveMask({ causal: true, window, sequence: "sequence" });
    const output = attention({ ...operands, mask, past: past(window), scale: 0.7, softCap: 0.9 });
    const got = await evaluate({ output }, feeds);
    const expected = reference(
      q,
      k,
      v,
      (b, t, s) => isBefore(b, t, s, window),
      (dot) => 0.9 * Math.tanh((0.7 * dot) / 0.9),
    );
    expect(farthest(got.output ?? [], expected)).toBeLessThan(1e-6);
  });

  it("gives finite numbers in rows that are masked everywhere", async () => {
    const attentionMask = input("mask", "int64", ["batch", "sequence"]);
    const mask = additiveMask({ attentionMask, causal: false, sequence: "sequence" });
    const got = await evaluate(
      { output: attention({ ...operands, mask }) },
      new Map([...feeds, ["mask", int64([B, T], [0, 0, 0, 1, 1, 1])]]),
    );
    expect(got.output?.every(Number.isFinite)).toBe(true);
  });

  it("needs no mask where every query sees every key", () => {
    expect(additiveMask({ causal: false, sequence: "sequence" })).toBeUndefined();
  });
});
