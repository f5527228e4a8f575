import { describe, expect, it } from "vitest";
import { input } from "../../src/graph/value.ts";
import { rope, ropeFrequencies, ropeTables } from "../../src/nn/rope.ts";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { evaluate, farthest } from "./evaluate.ts";

describe("rope", () => {
  it("turns pairs (i, i + d/2) by position times frequency", async () => {
    const [d, T, theta] = [6, 4, 50];
    const x = Array.from({ length: 2 * T * d }, (_, i) => Math.sin(i + 1));
    const positions = [0, 3, 7, 1];
    const output = rope(
      input("x", "float32", ["batch", 2, "sequence", d]),
      input("positions", "int64", ["batch", "sequence"]),
      ropeTables({ headDim: d, theta, maxPositions: 9 }),
    );
    const got = await evaluate(
      { output },
      new Map<string, Tensor>([
        ["x", float32([1, 2, T, d], x)],
        ["positions", tensor("int64", [1, T], BigInt64Array.from(positions, BigInt))],
      ]),
    );
    const expected = x.map((value, flat) => {
      const i = flat % d;
      const angle = (positions[Math.floor(flat / d) % T] ?? 0) * theta ** ((-2 * (i % 3)) / d);
      const other = i < 3 ? -(x[flat + 3] ?? 0) : (x[flat - 3] ?? 0);
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
    expect(farthest(got.output ?? [], expected)).toBeLessThan(1e-6);
  });

  it("keeps fast frequencies, divides slow ones and blends between in the llama3 scaling", () => {
    // Llama 3.2 1B: theta 500000, factor 32, bands 1 and 4 of 8192 positions, head of 64.
    const options = { headDim: 64, theta: 500000, maxPositions: 8 };
    const plain = ropeFrequencies(options);
    const scaling = {
      type: "llama3",
      factor: 32,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 8192,
    } as const;
    const scaled = ropeFrequencies({ ...options, scaling });
    const bands = new Set<string>();
    plain.forEach((frequency, i) => {
      const wavelength = (2 * Math.PI) / frequency;
      let expected = frequency;
      let band = "kept";
      if (wavelength > 8192) [expected, band] = [frequency / 32, "divided"];
      else if (wavelength > 8192 / 4) {
        const smooth = (8192 / wavelength - 1) / (4 - 1);
        [expected, band] = [((1 - smooth) * frequency) / 32 + smooth * frequency, "blended"];
      }
      bands.add(band);
      expect(scaled[i]).toBeCloseTo(expected, 14);
    });
    expect([...bands].sort()).toEqual(["blended", "divided", "kept"]);
  });

  it("divides every frequency in the linear scaling", () => {
    const options = { headDim: 8, theta: 100, maxPositions: 8 };
    const scaled = ropeFrequencies({ ...options, scaling: { type: "linear", factor: 4 } });
    expect(Array.from(scaled)).toEqual(Array.from(ropeFrequencies(options), (frequency) => frequency / 4));
  });

  it("leaves the rest of a head that is wider than its tables", async () => {
    const x = [1, 2, 3, 4, 5];
    const options = { headDim: 2, theta: 10, maxPositions: 4 };
    const output = rope(
      input("x", "float32", [1, 1, 1, 5]),
      input("positions", "int64", [1, 1]),
      ropeTables(options),
    );
    const feeds = new Map<string, Tensor>([
      ["x", float32([1, 1, 1, 5], x)],
      ["positions", tensor("int64", [1, 1], BigInt64Array.of(3n))],
    ]);
    const turned = [Math.cos(3) - 2 * Math.sin(3), 2 * Math.cos(3) + Math.sin(3)];
    expect(farthest((await evaluate({ output }, feeds)).output ?? [], [...turned, 3, 4, 5])).toBeLessThan(
      1e-6,
    );
  });

  it("divides each frequency by its factor and stretches the tables in LongRoPE", async () => {
    const scaling = { type: "longrope", factors: [1, 4], attentionFactor: 1.5 } as const;
    const options = { headDim: 4, theta: 100, maxPositions: 3, scaling };
    expect(Array.from(ropeFrequencies(options))).toEqual([1, 0.1 / 4]);
    const { cosine, sine } = ropeTables(options);
    const angles = [0, 0, 1, 0.025, 2, 0.05];
    expect(
      farthest(
        Array.from(cosine.constant?.data ?? [], Number),
        angles.map((a) => 1.5 * Math.cos(a)),
      ),
    ).toBeLessThan(1e-6);
    expect(
      farthest(
        Array.from(sine.constant?.data ?? [], Number),
        angles.map((a) => 1.5 * Math.sin(a)),
      ),
    ).toBeLessThan(1e-6);
  });
});
