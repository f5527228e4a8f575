import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { averageLinkage, kMeans, silhouette } from "../../src/tensor/clustering.ts";
import { matrix } from "../../src/tensor/matrix.ts";
import { stream } from "../../src/tensor/random.ts";

const random = (seed: number) => stream({ seed, purpose: "clustering test" });

/** Points about centres far apart, in a shuffled order. */
function planted(seed: number, groups: number, each: number, size: number) {
  const draw = random(seed);
  const order = draw.permutation(groups * each);
  const labels = order.map((i) => i % groups);
  const points = matrix(
    labels.length,
    size,
    labels.flatMap((label) =>
      Array.from({ length: size }, (_, d) => 20 * Number(d === label) + draw.normal()),
    ),
  );
  return { labels, points };
}

/** Labels up to their names. */
const partition = (labels: readonly number[]): number[] => {
  const names = [...new Set(labels)];
  return labels.map((label) => names.indexOf(label));
};

const setting = fc.record({
  seed: fc.integer({ min: 0, max: 1e6 }),
  groups: fc.integer({ min: 1, max: 4 }),
  each: fc.integer({ min: 2, max: 6 }),
});

describe("K-means", () => {
  it("finds planted groups, and numbers them by their first members", () => {
    fc.assert(
      fc.property(setting, ({ seed, groups, each }) => {
        const { labels, points } = planted(seed, groups, each, 6);
        expect(kMeans(points, groups, random(seed + 1))).toEqual(partition(labels));
      }),
      { numRuns: 40 },
    );
  });

  it("leaves each point alone where there are no more points than clusters", () => {
    expect(kMeans(matrix(2, 3, [1, 2, 3, 1, 2, 3]), 3, random(1))).toEqual([0, 1]);
  });

  it("ends where every point is nearest to the mean of its own cluster", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.integer({ min: 2, max: 4 }), (seed, count) => {
        const draw = random(seed);
        const points = matrix(
          12,
          3,
          Float64Array.from({ length: 36 }, () => draw.normal()),
        );
        const clusters = kMeans(points, count, random(seed + 1));
        const row = (i: number) => [...points.data.subarray(3 * i, 3 * i + 3)];
        const means = [...new Set(clusters)].map((c) => {
          const members = clusters.flatMap((one, i) => (one === c ? [row(i)] : []));
          return [0, 1, 2].map((d) => members.reduce((sum, x) => sum + (x[d] ?? 0), 0) / members.length);
        });
        const distance = (x: readonly number[], y: readonly number[]) =>
          x.reduce((sum, value, d) => sum + (value - (y[d] ?? 0)) ** 2, 0);
        clusters.forEach((c, i) => {
          const own = distance(row(i), means[c] ?? []);
          for (const mean of means) expect(own).toBeLessThanOrEqual(distance(row(i), mean) + 1e-9);
        });
      }),
      { numRuns: 40 },
    );
  });
});

describe("average linkage", () => {
  // Points 0, 1, 5, 6, 20 of a line.
  const line = [0, 1, 5, 6, 20];
  const distances = matrix(
    5,
    5,
    line.flatMap((x) => line.map((y) => Math.abs(x - y))),
  );

  it("merges the nearest by mean distance", () => {
    expect(averageLinkage(distances, 4)).toEqual([0, 0, 1, 2, 3]);
    expect(averageLinkage(distances, 3)).toEqual([0, 0, 1, 1, 2]);
    expect(averageLinkage(distances, 2)).toEqual([0, 0, 0, 0, 1]);
    expect(averageLinkage(distances, 1)).toEqual([0, 0, 0, 0, 0]);
  });

  it("has a silhouette that a hand can check", () => {
    // Clusters {0, 1}, {5, 6}: a = 1; b of 0 is (5 + 6) / 2, of 1 is (4 + 5) / 2, and so by symmetry.
    const four = matrix(
      4,
      4,
      [0, 1, 5, 6].flatMap((x) => [0, 1, 5, 6].map((y) => Math.abs(x - y))),
    );
    expect(silhouette(four, [0, 0, 1, 1])).toBeCloseTo((4.5 / 5.5 + 3.5 / 4.5) / 2, 12);
    // {20} alone counts 0.
    const alone = silhouette(distances, [0, 0, 1, 1, 2]);
    expect(alone).toBeCloseTo((2 * (4.5 / 5.5) + 2 * (3.5 / 4.5)) / 5, 12);
    expect(silhouette(distances, [0, 0, 0, 0, 0])).toBe(0);
  });
});
