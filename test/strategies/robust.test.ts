import { describe, expect, it } from "vitest";
import type { Strategy, Update } from "../../src/federation/strategy.ts";
import { coordinateMedian } from "../../src/strategies/coordinate-median.ts";
import { fedAvg } from "../../src/strategies/fedavg.ts";
import { geometricMedian } from "../../src/strategies/geometric-median.ts";
import { krum, krumScores, multiKrum } from "../../src/strategies/krum.ts";
import { trimmedMean, trimmedPerEnd } from "../../src/strategies/trimmed-mean.ts";
import type { Params } from "../../src/tensor/params.ts";
import { stream } from "../../src/tensor/random.ts";
import { clipped } from "../../src/wrappers/clipped.ts";
import { context, update, valuesOf, weights } from "./dense.ts";

const start = weights(0, 0, 0);
const aggregated = (strategy: Strategy<Params>, updates: readonly Update[]): number[] =>
  valuesOf(strategy.aggregate(start, updates, context).state);

/** Honest clients near (1, 2, 3), of unequal size. */
function honest(count: number): Update[] {
  const random = stream({ seed: 2, purpose: "honest" });
  return Array.from({ length: count }, (_, k) =>
    update(
      `h${k}`,
      5 + 3 * k,
      1 + 0.1 * random.normal(),
      2 + 0.1 * random.normal(),
      3 + 0.1 * random.normal(),
    ),
  );
}

const far = (x: readonly number[]): number => Math.hypot(...x.map((v, i) => v - (i + 1)));

describe("robust rules", () => {
  const attackers = [update("x", 1000, 900, -900, 900), update("y", 1000, -500, 700, 1e6)];
  const updates = [...honest(7), ...attackers];

  it.each([
    ["coordinate median", coordinateMedian()],
    ["trimmed mean", trimmedMean({ beta: 0.25 })],
    ["Krum", krum({ byzantine: 2 })],
    ["Multi-Krum", multiKrum({ byzantine: 2, keep: 4 })],
    ["geometric median", geometricMedian({ weighting: "uniform", steps: 50 })],
  ])("%s stays with the honest clients where the mean does not", (_, strategy) => {
    expect(far(aggregated(fedAvg({ weighting: "uniform" }), updates))).toBeGreaterThan(1e3);
    expect(far(aggregated(strategy, updates))).toBeLessThan(0.3);
  });

  it.each([
    ["coordinate median", coordinateMedian()],
    ["trimmed mean", trimmedMean()],
    ["Krum", krum()],
    ["Multi-Krum", multiKrum()],
  ])("%s does not look at examples", (_, strategy) => {
    const equal = updates.map((one) => ({ ...one, numExamples: 1 }));
    expect(aggregated(strategy, updates)).toEqual(aggregated(strategy, equal));
  });

  it("the median of an even number of clients is the mean of the two in the middle", () => {
    const four = [
      [4, 0, 9],
      [1, 0, 7],
      [3, 5, 8],
      [100, 5, -6],
    ].map((x, k) => update(`c${k}`, 1, ...x));
    expect(aggregated(coordinateMedian(), four)).toEqual([3.5, 2.5, 7.5]);
  });

  it("the trimmed mean is the mean where nothing is trimmed, and nearly the median where nearly all is", () => {
    expect(aggregated(trimmedMean({ beta: 0 }), updates)).toEqual(
      aggregated(fedAvg({ weighting: "uniform" }), updates),
    );
    expect(aggregated(trimmedMean({ beta: 0.49 }), updates)).toEqual(aggregated(coordinateMedian(), updates));
  });

  it("counts whole clients also where their share is not a binary number", () => {
    expect([trimmedPerEnd(0.3, 7), trimmedPerEnd(0.1, 10), trimmedPerEnd(0.29, 100)]).toEqual([2, 1, 29]);
  });

  it("Multi-Krum over everybody is the plain mean, and Krum is one of the updates", () => {
    const mean = aggregated(fedAvg({ weighting: "uniform" }), updates);
    expect(aggregated(multiKrum({ keep: 99 }), updates)).toEqual(mean);
    expect(updates.map(({ params }) => valuesOf(params))).toContainEqual(
      aggregated(krum({ byzantine: 2 }), updates),
    );
  });

  it("Krum sums the K - f - 2 smallest squared distances", () => {
    const line = [0, 1, 3, 7].map((x, k) => update(`c${k}`, 1, x));
    expect(krumScores(line, 0)).toEqual([1 + 9, 1 + 4, 4 + 9, 16 + 36]);
  });

  it("Krum refuses a round in which the attackers could decide", () => {
    expect(() => aggregated(krum({ byzantine: 2 }), honest(6))).toThrow(
      expect.objectContaining({ code: "too-few-updates" }),
    );
  });

  it("the geometric median of three on a line is the weighted median, and its pull has no length", () => {
    const line = [update("a", 1, 0, 0, 0), update("b", 1, 1, 1, 1), update("c", 1, 9, 9, 9)];
    for (const x of aggregated(geometricMedian({ steps: 500 }), line)) expect(x).toBeCloseTo(1, 2);
    const farther = [...line.slice(0, 2), update("c", 1, 9e5, 9e5, 9e5)];
    for (const x of aggregated(geometricMedian({ steps: 500 }), farther)) expect(x).toBeCloseTo(1, 2);
  });

  it("measures how far it is from the mean of what the clients sent, clipped or not", () => {
    const { measurements = {} } = clipped(fedAvg(), { norm: 1 }).aggregate(start, updates, context);
    const after = aggregated(clipped(fedAvg(), { norm: 1 }), updates);
    const mean = aggregated(fedAvg(), updates);
    expect(measurements["deviation/dense"]).toBeCloseTo(
      Math.hypot(...after.map((x, i) => x - (mean[i] ?? 0))),
      0,
    );
    expect(measurements["relativeDeviation/dense"]).toBeCloseTo(1, 3);
  });

  it("refuses options that mean nothing", () => {
    expect(() => trimmedMean({ beta: 0.5 })).toThrow(/beta is 0.5/);
    expect(() => krum({ byzantine: -1 })).toThrow(/byzantine is -1/);
    expect(() => multiKrum({ keep: 0 })).toThrow(/keep is 0/);
    expect(() => geometricMedian({ nu: 0 })).toThrow(/nu is 0/);
  });
});
