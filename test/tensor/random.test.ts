import { describe, expect, it } from "vitest";
import { exp, ln } from "../../src/tensor/elementary.ts";
import { philox4x32, stream } from "../../src/tensor/random.ts";

describe("Philox4x32-10", () => {
  // Random123 1.14, tests/kat_vectors, lines "philox4x32 10".
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])("matches the published vector for counter %j", (counter, key, expected) => {
    expect(Array.from(philox4x32(counter, key))).toEqual(expected);
  });
});

const draws = (key: Parameters<typeof stream>[0], count = 8): number[] => {
  const random = stream(key);
  return Array.from({ length: count }, () => random.uint32());
};

describe("stream", () => {
  it("gives equal numbers for equal keys and others for any change of the key", () => {
    const key = { seed: 7, round: 2, client: "ab", purpose: "batches" };
    expect(draws(key)).toEqual(draws({ ...key }));
    const others = [
      { ...key, seed: 8 },
      { ...key, seed: 7 + 2 ** 32 },
      { ...key, round: 3 },
      { seed: 7, client: "ab", purpose: "batches" },
      { seed: 7, round: 2, purpose: "batches" },
      { ...key, client: "" },
      { ...key, client: "a", purpose: "bbatches" },
      { ...key, client: "ab\0" },
      { ...key, purpose: "init" },
    ];
    const seen = new Set([draws(key), ...others.map((other) => draws(other))].map(String));
    expect(seen.size).toBe(others.length + 1);
  });

  it("derives the stream by the documented hash", () => {
    // seed 5, no round, no client, purpose "p": blocks (5, 0), (0, 0), (0, 0), (2, 0), ("p", 0).
    let state = [0, 0, 0, 0];
    for (const block of [
      [5, 0],
      [0, 0],
      [0, 0],
      [2, 0],
      [0x70, 0],
    ]) {
      const mixed = philox4x32(state, block);
      state = state.map((word, i) => (word ^ (mixed[i] ?? 0)) >>> 0);
    }
    const [key0 = 0, key1 = 0, high0 = 0, high1 = 0] = state;
    expect(draws({ seed: 5, purpose: "p" })).toEqual([
      ...philox4x32([0, 0, high0, high1], [key0, key1]),
      ...philox4x32([1, 0, high0, high1], [key0, key1]),
    ]);
  });

  it("refuses seeds and rounds that are no safe integers", () => {
    expect(() => stream({ seed: 0.5, purpose: "x" })).toThrow(/seed 0.5/);
    expect(() => stream({ seed: 1, round: -2, purpose: "x" })).toThrow(/round/);
  });

  it("draws uniform and normal numbers with the moments of their laws", () => {
    const random = stream({ seed: 1, purpose: "moments" });
    const count = 200_000;
    const uniform = new Float64Array(count);
    const normal = new Float64Array(count);
    random.fillUniform(uniform, -1, 3);
    random.fillNormal(normal, 2, 0.5);
    const moments = (x: Float64Array): [number, number] => {
      const mean = x.reduce((a, b) => a + b, 0) / count;
      return [mean, x.reduce((a, b) => a + (b - mean) ** 2, 0) / count];
    };
    // Five standard errors of each estimate.
    const [uniformMean, uniformVariance] = moments(uniform);
    expect(Math.abs(uniformMean - 1)).toBeLessThan(5 * Math.sqrt(4 / 3 / count));
    expect(Math.abs(uniformVariance - 4 / 3)).toBeLessThan(5 * Math.sqrt((16 / 5 - 16 / 9) / count));
    expect(Math.min(...uniform.subarray(0, 1000))).toBeGreaterThanOrEqual(-1);
    const [normalMean, normalVariance] = moments(normal);
    expect(Math.abs(normalMean - 2)).toBeLessThan(5 * (0.5 / Math.sqrt(count)));
    expect(Math.abs(normalVariance - 0.25)).toBeLessThan(5 * 0.25 * Math.sqrt(2 / count));
  });

  it("draws integers without bias", () => {
    const random = stream({ seed: 2, purpose: "integers" });
    const counts = new Array<number>(6).fill(0);
    for (let i = 0; i < 60_000; i++) {
      const face = random.integer(6);
      counts[face] = (counts[face] ?? 0) + 1;
    }
    const chiSquare = counts.reduce((sum, n) => sum + (n - 10_000) ** 2 / 10_000, 0);
    expect(chiSquare).toBeLessThan(20.5); // 0.1 % point for 5 degrees of freedom
    const limit = 3 * 2 ** 50;
    for (let i = 0; i < 100; i++) expect(random.integer(limit)).toBeLessThan(limit);
    expect(() => random.integer(0)).toThrow(/limit 0/);
  });

  it("permutes, and samples without repetition, each order equally often", () => {
    const random = stream({ seed: 3, purpose: "orders" });
    expect(random.permutation(9).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    const items = Object.freeze(["a", "b", "c"]);
    const orders = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = random.shuffle(items).join("");
      orders.set(order, (orders.get(order) ?? 0) + 1);
    }
    expect(orders.size).toBe(6);
    for (const count of orders.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
    const sample = random.sample(1e9, 1000);
    expect(new Set(sample).size).toBe(1000);
    expect(() => random.sample(3, 4)).toThrow(/sample: 4 of 3/);
  });

  it("draws gamma and Dirichlet numbers with the moments of their laws, also for tiny concentrations", () => {
    const random = stream({ seed: 4, purpose: "gamma" });
    for (const shape of [0.3, 1, 7.5]) {
      const x = Array.from({ length: 50_000 }, () => random.gamma(shape));
      const mean = x.reduce((a, b) => a + b, 0) / x.length;
      expect(Math.abs(mean - shape)).toBeLessThan(5 * Math.sqrt(shape / x.length));
      const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
      expect(Math.abs(variance / shape - 1)).toBeLessThan(0.15);
    }
    const tiny = random.dirichlet([1e-3, 1e-3, 1e-3]);
    expect(tiny.every((share) => share >= 0 && share <= 1)).toBe(true);
    expect(tiny.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
    const shares = Array.from({ length: 20_000 }, () => random.dirichlet([1, 2, 5])[2] ?? 0);
    // Beta(5, 3): mean 5/8, variance 15/576.
    const mean = shares.reduce((a, b) => a + b, 0) / shares.length;
    expect(Math.abs(mean - 5 / 8)).toBeLessThan(5 * Math.sqrt(15 / 576 / shares.length));
  });
});

describe("elementary functions", () => {
  it("agree with Math.log and Math.exp within two and four ulps", () => {
    const random = stream({ seed: 5, purpose: "elementary" });
    for (let i = 0; i < 20_000; i++) {
      const x = 2 ** random.uniformRange(-1000, 1000);
      expect(Math.abs(ln(x) - Math.log(x))).toBeLessThanOrEqual(2 * 2 ** -52 * Math.abs(Math.log(x)));
      const near = random.uniformRange(0.5, 2);
      expect(Math.abs(ln(near) - Math.log(near))).toBeLessThanOrEqual(
        2 * 2 ** -52 * Math.abs(Math.log(near)),
      );
      const y = random.uniformRange(-700, 700);
      expect(Math.abs(exp(y) - Math.exp(y))).toBeLessThanOrEqual(4 * 2 ** -52 * Math.exp(y));
    }
    expect([ln(0), ln(-1), ln(Infinity), ln(1), exp(0), exp(-1e4), exp(1e4)]).toEqual([
      -Infinity,
      Number.NaN,
      Infinity,
      0,
      1,
      0,
      Infinity,
    ]);
  });
});
