import { describe, expect, it } from "vitest";
import { bootstrapInterval } from "../../src/metrics/bootstrap.ts";
import { standardError } from "../../src/metrics/standard-error.ts";
import { stream } from "../../src/tensor/random.ts";

const random = stream({ seed: 5, purpose: "test" });
const values = Array.from({ length: 400 }, () => random.normal());
const mean = (indices: readonly number[]): number =>
  indices.reduce((sum, i) => sum + (values[i] ?? Number.NaN), 0) / indices.length;
const all = values.map((_, i) => i);

describe("the bootstrap interval", () => {
  it("of a mean is that of the normal approximation", () => {
    const { low = 0, high = 0 } = bootstrapInterval(400, mean, { seed: 1, resamples: 2000 }) ?? {};
    const width = 1.96 * (standardError(values) ?? Number.NaN);
    expect(low).toBeCloseTo(mean(all) - width, 1.9);
    expect(high).toBeCloseTo(mean(all) + width, 1.9);
    expect(high - low).toBeGreaterThan(1.85 * width);
    expect(high - low).toBeLessThan(2.15 * width);
  });

  it("repeats under its seed and key, and differs under others", () => {
    const one = bootstrapInterval(400, mean, { seed: 1, key: "a" });
    expect(bootstrapInterval(400, mean, { seed: 1, key: "a" })).toEqual(one);
    expect(bootstrapInterval(400, mean, { seed: 1, key: "b" })).not.toEqual(one);
    expect(bootstrapInterval(400, mean, { seed: 2, key: "a" })).not.toEqual(one);
  });

  it("passes over samples without a value, and is absent where most have none", () => {
    const rarely = (indices: readonly number[]): number | undefined =>
      indices[0] === 0 ? undefined : mean(indices);
    expect(bootstrapInterval(400, rarely, { seed: 1 })).toBeDefined();
    expect(bootstrapInterval(400, () => undefined, { seed: 1 })).toBeUndefined();
    expect(bootstrapInterval(0, mean, { seed: 1 })).toBeUndefined();
  });
});

describe("the standard error", () => {
  it("is the sample deviation over the root of the number", () => {
    expect(standardError([1, 2, 3, 4])).toBeCloseTo(Math.sqrt(5 / 3 / 4), 12);
    expect(standardError([1])).toBeUndefined();
  });
});
