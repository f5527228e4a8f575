import { describe, expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { additiveMask, attention } from "../../src/nn/attention.ts";
import { stream } from "../../src/tensor/random.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { evaluate, farthest } from "./evaluate.ts";

const [B, H, Hkv, T, S, d] = [2, 6, 2, 3, 5, 4];

function normal(name: string, shape: readonly number[]): Tensor<"float32"> {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  stream({ seed: 3, purpose: name }).fillNormal(values, 0, 1);
  return float32(shape, values);
}

const int64 = (shape: readonly number[], values: readonly number[]): Tensor<"int64"> =>
  tensor("int64", shape, BigInt64Array.from(values, BigInt));

/** Attention by its definition in float64, head by head; query t stands at position past + t. */
function reference(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  visible: (b: number, t: number, s: number) => boolean,
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
          return visible(b, t, s) ? Math.exp(dot / Math.sqrt(d)) : 0;
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
  const feeds = new Map<string, Tensor>([
    ["q", normal("q", [B, H, T, d])],
    ["k", normal("k", [B, Hkv, S, d])],
    ["v", normal("v", [B, Hkv, S, d])],
    ["mask", int64([B, S], [1, 1, 1, 1, 1, 0, 1, 1, 1, 1])],
    ["past", normal("past", [B, Hkv, S - T, d])],
  ]);
  const [q, k, v] = ["q", "k", "v"].map((name) => feeds.get(name) ?? int64([0], []));
  const value = (name: string, heads: number, rows: string) =>
    input(name, "float32", ["batch", heads, rows, d]);

  it("equals the definition where query heads share key/value heads behind a cache and a padding mask", async () => {
    const mask = additiveMask({
      attentionMask: input("mask", "int64", ["batch", "total"]),
      causal: true,
      sequence: "sequence",
      total: "total",
      past: "past",
    });
    const output = attention({
      query: value("q", H, "sequence"),
      key: value("k", Hkv, "total"),
      value: value("v", Hkv, "total"),
      mask,
    });
    const past = value("past", Hkv, "past");
    const got = await evaluate({ output, bound: past }, feeds);
    const hidden = (b: number, s: number): boolean => b === 1 && s === 0;
    if (!q || !k || !v) throw new Error("no feeds");
    const expected = reference(q, k, v, (b, t, s) => s <= t + (S - T) && !hidden(b, s));
    expect(farthest(got.output ?? [], expected)).toBeLessThan(1e-6);
  });

  it("gives finite numbers in rows that are masked everywhere", async () => {
    const attentionMask = input("mask", "int64", ["batch", "total"]);
    const mask = additiveMask({ attentionMask, causal: false, sequence: "sequence", total: "total" });
    const output = attention({
      query: value("q", H, "sequence"),
      key: value("k", Hkv, "total"),
      value: value("v", Hkv, "total"),
      mask,
    });
    const got = await evaluate(
      { output },
      new Map([...feeds, ["mask", int64([B, S], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1])]]),
    );
    expect(got.output?.every(Number.isFinite)).toBe(true);
  });

  it("needs no mask where every query sees every key", () => {
    expect(additiveMask({ causal: false, sequence: "sequence" })).toBeUndefined();
  });
});
