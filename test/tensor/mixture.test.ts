import { describe, expect, it } from "vitest";
import { matrix } from "../../src/tensor/matrix.ts";
import { fitMixture, mixtureDistance, wassersteinSquared } from "../../src/tensor/mixture.ts";
import { stream } from "../../src/tensor/random.ts";

/** Samples of two diagonal normals far apart, a third of them from the first. */
function samples(count: number): ReturnType<typeof matrix> {
  const random = stream({ seed: 5, purpose: "mixture test" });
  const noise = new Float64Array(2 * count);
  random.fillNormal(noise, 0, 1);
  const first = (i: number): boolean => i % 3 === 0;
  return matrix(
    count,
    2,
    noise.map((x, at) => {
      const i = at >> 1;
      const own =
        at % 2 === 0 ? { mean: first(i) ? -5 : 6, deviation: 1 } : { mean: 2, deviation: first(i) ? 0.5 : 2 };
      return own.mean + own.deviation * x;
    }),
  );
}

describe("a mixture of two distant normals", () => {
  const fitted = fitMixture(samples(3000), stream({ seed: 1, purpose: "fit" }), { components: 2 });
  const [left, right] = [...fitted].sort((a, b) => Number(a.mean[0]) - Number(b.mean[0]));

  it("is found again: shares, means and variances", () => {
    expect(left?.weight).toBeCloseTo(1 / 3, 3);
    expect(right?.weight).toBeCloseTo(2 / 3, 3);
    expect(Math.abs(Number(left?.mean[0]) + 5)).toBeLessThan(0.1);
    expect(Math.abs(Number(right?.mean[0]) - 6)).toBeLessThan(0.1);
    expect(Number(left?.variance[1])).toBeCloseTo(0.25, 1);
    expect(Math.abs(Number(right?.variance[1]) - 4)).toBeLessThan(0.4);
  });

  it("is at distance 0 from itself, and from a shifted copy at the squared shift", () => {
    const shifted = fitted.map((one) => ({ ...one, mean: Array.from(one.mean, (x) => x + 2) }));
    expect(mixtureDistance(fitted, fitted)).toBeCloseTo(0, 12);
    expect(mixtureDistance(fitted, shifted)).toBeCloseTo(8, 9);
  });
});

it("the distance of two normals is that of their means and of their deviations", () => {
  const a = { weight: 1, mean: [0, 1], variance: [4, 1] };
  const b = { weight: 1, mean: [3, 1], variance: [1, 9] };
  expect(wassersteinSquared(a, b)).toBe(9 + 1 + 4);
});
