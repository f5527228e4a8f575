import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contiguous } from "../../../src/data/partition/contiguous.ts";
import { classDirichlet, dirichlet } from "../../../src/data/partition/dirichlet.ts";
import { iid } from "../../../src/data/partition/iid.ts";
import { natural } from "../../../src/data/partition/natural.ts";
import type { Partition } from "../../../src/data/partition/partition.ts";
import { pathological } from "../../../src/data/partition/pathological.ts";
import { exponential, linear, quantityDirichlet, square } from "../../../src/data/partition/quantity-skew.ts";
import { shards } from "../../../src/data/partition/shards.ts";
import { shared } from "../../shared.ts";

type Partitioner = (labels: readonly number[], options: { clients: number; seed: number }) => Partition;

const alphas = [0.1, 0.5, 1, 100];

/** The partitioners under the names of the golden statistics. */
const partitioners = new Map<string, Partitioner>([
  ["iid", (labels, options) => iid(labels.length, options)],
  ["shards2", (labels, options) => shards(labels, { ...options, shardsPerClient: 2 })],
  ...(["random", "deterministic", "first-deterministic"] as const).map(
    (assignment): [string, Partitioner] => [
      `pathological2-${assignment}`,
      (labels, options) => pathological(labels, { ...options, classesPerClient: 2, assignment }),
    ],
  ),
  ...alphas.flatMap((alpha): [string, Partitioner][] => [
    [`hsu-${alpha}`, (labels, options) => classDirichlet(labels, { ...options, alpha })],
    [`hsuPerClass-${alpha}`, (labels, options) => classDirichlet(labels, { ...options, alpha, per: "one" })],
    [`dirichlet-${alpha}`, (labels, options) => dirichlet(labels, { ...options, alpha, minExamples: 0 })],
    [
      `dirichletMin10-${alpha}`,
      (labels, options) => dirichlet(labels, { ...options, alpha, minExamples: 10 }),
    ],
    [
      `dirichletMin10Balancing-${alpha}`,
      (labels, options) => dirichlet(labels, { ...options, alpha, minExamples: 10, selfBalancing: true }),
    ],
    [
      `quantity-${alpha}`,
      (labels, options) => quantityDirichlet(labels.length, { ...options, alpha, minExamples: 0 }),
    ],
    [
      `quantityMin1-${alpha}`,
      (labels, options) => quantityDirichlet(labels.length, { ...options, alpha, minExamples: 1 }),
    ],
  ]),
]);

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);
const mean = (xs: readonly number[]): number => sum(xs) / xs.length;

/** The statistics of the golden file, as its notes define them. */
function statistics(labels: readonly number[], partition: Partition): Record<string, number> {
  const classes = [...new Set(labels)];
  const counts = [...partition.values()].map((indices) =>
    classes.map((c) => indices.filter((i) => labels[i] === c).length),
  );
  const sizes = counts.map(sum);
  const full = counts.filter((row) => sum(row) > 0);
  const shares = full.map((row) => row.map((n) => n / sum(row)));
  const entropy = shares.map((row) => -sum(row.map((p) => (p > 0 ? p * Math.log(p) : 0))));
  const used = full.map(sum);
  const overall = classes.map((c) => labels.filter((label) => label === c).length / labels.length);
  const variation = shares.map((row) => sum(row.map((p, c) => Math.abs(p - (overall[c] ?? 0)))) / 2);
  const average = mean(sizes);
  return {
    entropy: mean(entropy),
    entropyWeighted: sum(entropy.map((e, k) => e * (used[k] ?? 0))) / sum(used),
    entropyMin: Math.min(...entropy),
    entropyMax: Math.max(...entropy),
    labelsPerClient: mean(full.map((row) => row.filter((n) => n > 0).length)),
    totalVariation: mean(variation),
    sizeMin: Math.min(...sizes),
    sizeMax: Math.max(...sizes),
    sizeDeviation: Math.sqrt(mean(sizes.map((n) => (n - average) ** 2))),
    sizeGini: sum(sizes.flatMap((a) => sizes.map((b) => Math.abs(a - b)))) / (2 * sizes.length * sum(sizes)),
    emptyClients: sizes.filter((n) => n === 0).length,
    usedExamples: sum(sizes),
  };
}

const tenClasses = Array.from({ length: 1000 }, (_, i) => Math.floor(i / 100));

describe("every partitioner", () => {
  for (const [name, partitioner] of partitioners) {
    it(`${name} gives no example twice, and the same to the same seed only`, () => {
      const first = partitioner(tenClasses, { clients: 10, seed: 3 });
      const all = [...first.values()].flat();
      expect(new Set(all).size).toBe(all.length);
      expect(all.every((i) => Number.isInteger(i) && i >= 0 && i < 1000)).toBe(true);
      expect([...partitioner(tenClasses, { clients: 10, seed: 3 })]).toEqual([...first]);
      expect([...partitioner(tenClasses, { clients: 10, seed: 4 })]).not.toEqual([...first]);
    });
  }
});

interface Golden {
  readonly fixedSizes: Record<"linear" | "square" | "exponential", readonly number[] | null>;
  readonly cases: Record<string, Record<string, { readonly mean: number; readonly sd: number }>>;
}

describe.skipIf(shared === undefined)(
  "against the recorded statistics (skipped where shared/ is absent)",
  () => {
    const read = (): Golden =>
      JSON.parse(readFileSync(`${shared}/goldens/partition/partitioners.json`, "utf8"));
    const seeds = 100;

    for (const [name, partitioner] of partitioners) {
      it(`${name} has the recorded label and size statistics`, () => {
        const rows = Array.from({ length: seeds }, (_, seed) =>
          statistics(tenClasses, partitioner(tenClasses, { clients: 10, seed })),
        );
        const expected = read().cases[name] ?? {};
        expect(Object.keys(expected).length).toBeGreaterThan(10);
        for (const [statistic, { mean: want, sd }] of Object.entries(expected)) {
          if (statistic === "attempts") continue;
          const got = mean(rows.map((row) => row[statistic] ?? Number.NaN));
          // The tolerance of the golden file's notes: four standard errors of the difference and a hundredth.
          const tolerance = 4 * sd * Math.sqrt(1 / 200 + 1 / seeds) + 0.01 * (1 + Math.abs(want));
          expect(Math.abs(got - want), `${statistic}: ${got}, recorded ${want}`).toBeLessThanOrEqual(
            tolerance,
          );
        }
      });
    }

    it("every recorded case has its partitioner here", () => {
      expect(Object.keys(read().cases).filter((name) => !partitioners.has(name))).toEqual([]);
    });

    it("linear and square sizes are the recorded ones", () => {
      const sizes = (partition: Partition): number[] =>
        [...partition.values()].map((indices) => indices.length);
      expect(sizes(linear(1000, { clients: 10, seed: 1 }))).toEqual(read().fixedSizes.linear);
      expect(sizes(square(1000, { clients: 10, seed: 1 }))).toEqual(read().fixedSizes.square);
      expect(read().fixedSizes.exponential).toBeNull();
    });
  },
);

describe("sizes", () => {
  it("iid sizes differ by at most one and use every example", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 20 }), (count, clients) => {
        fc.pre(clients <= count);
        const sizes = [...iid(count, { clients, seed: 5 }).values()].map((indices) => indices.length);
        expect(sum(sizes)).toBe(count);
        expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("contiguous parts follow the order of the data, the longer ones first", () => {
    expect([...contiguous(7, { clients: 3 })]).toEqual([
      ["client-0", [0, 1, 2]],
      ["client-1", [3, 4]],
      ["client-2", [5, 6]],
    ]);
  });

  it("exponential sizes grow by e, and are refused where a silo would get nothing", () => {
    const sizes = [...exponential(1000, { clients: 4, seed: 1 }).values()].map((indices) => indices.length);
    const units = [0, 1, 2, 3].map(Math.exp);
    const floors = units.map((u) => Math.floor((1000 * u) / sum(units)));
    expect(sizes.slice(0, 3)).toEqual(floors.slice(0, 3));
    expect(sum(sizes)).toBe(1000);
    expect(() => exponential(1000, { clients: 10, seed: 1 })).toThrow(
      /exponential: the silo client-0 .*has 0 examples/,
    );
  });
});

describe("silos", () => {
  const records = [{ who: "b" }, { who: "a" }, { who: "b" }, { who: 7 }];

  it("natural gives one client for each value of the field, in order of appearance", () => {
    expect([...natural(records, { field: "who" })]).toEqual([
      ["b", [0, 2]],
      ["a", [1]],
      ["7", [3]],
    ]);
  });

  it("natural refuses a record without the field, a silo that is too small, and no records", () => {
    expect(() => natural([...records, { other: 1 }], { field: "who" })).toThrow(
      'natural: record 4 has no text or number in the field "who"',
    );
    expect(() => natural(records, { field: "who", minExamples: 2 })).toThrow(
      "the silo a and 1 more has 1 examples, expected at least 2",
    );
    expect(() => natural([], { field: "who" })).toThrow("there are no records");
  });

  it("more clients than examples is an empty silo, by name", () => {
    for (const attempt of [
      () => iid(3, { clients: 4, seed: 1 }),
      () => shards([0, 1, 2], { clients: 4, seed: 1 }),
      () => dirichlet([0, 1, 2], { clients: 4, seed: 1, alpha: 1 }),
      () => dirichlet(tenClasses, { clients: 10, seed: 1, alpha: 0.01, minExamples: 90, attempts: 3 }),
    ]) {
      expect(attempt).toThrow(expect.objectContaining({ code: "empty-silo" }));
    }
  });

  it("options out of range are refused with what was got and expected", () => {
    expect(() => dirichlet(tenClasses, { clients: 2, seed: 1, alpha: 0 })).toThrow(
      "dirichlet: alpha 0, expected a number above 0",
    );
    expect(() => iid(5, { clients: 1.5, seed: 1 })).toThrow(
      "iid: clients 1.5, expected an integer of at least 1",
    );
    expect(() => pathological([0, 1], { clients: 2, seed: 1, classesPerClient: 3 })).toThrow(
      "expected an integer from 1 to 2",
    );
    expect(() => shards([0, 1], { clients: 2, seed: 1, shardsPerClient: 0 })).toThrow("shardsPerClient 0");
  });

  it("labels may be names; numbers are ordered by size", () => {
    const labels = ["x", "x", "y", "y", "z", "z"];
    const deal = shards(labels, { clients: 3, seed: 2, shardsPerClient: 1 });
    for (const indices of deal.values()) expect(new Set(indices.map((i) => labels[i])).size).toBe(1);
    const numbers = [10, 9, 10, 9];
    for (const indices of shards(numbers, { clients: 2, seed: 2, shardsPerClient: 1 }).values()) {
      expect(new Set(indices.map((i) => numbers[i])).size).toBe(1);
    }
  });
});
