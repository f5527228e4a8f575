import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Figure } from "../../src/report/chart.ts";
import { sweepPlots } from "../../src/report/sweep-figures.ts";
import { readSweep } from "../../src/report/sweep-record.node.ts";
import { type SweptMethod, writeSweepFolder } from "./folders.ts";

let root = "";
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "sweep-report-"));
});
afterAll(() => rm(root, { recursive: true }));

async function figuresOf(
  name: string,
  methods: readonly SweptMethod[],
  partitions = ["IID"],
): Promise<Figure[]> {
  await writeSweepFolder(join(root, name), { methods, partitions, failure: "no memory" });
  const record = await readSweep(join(root, name));
  return record === undefined ? [] : sweepPlots(record).flatMap(({ figures }) => figures);
}

const two: readonly SweptMethod[] = [
  { label: "cheap", accuracies: [0.8, 0.9], bytes: 1000 },
  { label: "dear", accuracies: [0.6, 0.65], bytes: 500_000 },
];

describe("the plots of a sweep", () => {
  it("show each seed of each method and leave out runs that failed", async () => {
    const figures = await figuresOf("finals", two);
    const final = figures.find(({ name }) => name === "final");
    expect(final?.chart).toEqual({
      kind: "rows",
      x: { title: "accuracy" },
      rows: [
        { name: "cheap", values: [0.8, 0.9] },
        { name: "dear", values: [0.6, 0.65] },
      ],
    });
    expect(final?.text).toContain(
      "The best mean is that of cheap, 0.85; the next is dear with 0.625, further apart than the seeds of one method are.",
    );
  });

  it("show mean curves with one standard deviation to each side", async () => {
    const figures = await figuresOf("curves", two);
    const chart = figures.find(({ name }) => name === "accuracy")?.chart;
    const [cheap] = chart?.kind === "lines" ? chart.lines : [];
    expect(cheap?.points.map(([x]) => x)).toEqual([0, 1, 2, 3]);
    expect(cheap?.points[3]?.[1]).toBeCloseTo(0.85, 12);
    // The sample standard deviation of 0.8 and 0.9.
    expect(cheap?.band?.upper[3]?.[1]).toBeCloseTo(0.85 + Math.sqrt(0.005), 12);
    expect(cheap?.band?.lower[0]).toEqual([0, 0.5]);
  });

  it("show bytes on a logarithmic axis where methods are far apart", async () => {
    const figures = await figuresOf("bytes", two);
    const cost = figures.find(({ name }) => name === "cost")?.chart;
    expect(cost?.kind === "points" && cost.groups.map(({ points }) => points)).toEqual([
      [
        [6000, 0.8],
        [6000, 0.9],
      ],
      [
        [3_000_000, 0.6],
        [3_000_000, 0.65],
      ],
    ]);
    const curve = figures.find(({ name }) => name === "accuracy-traffic")?.chart;
    expect(curve?.kind === "lines" && [curve.x.log, curve.lines[1]?.points[1]?.[0]]).toEqual([
      true,
      1_000_000,
    ]);
  });

  it("name a method that sends nothing instead of losing it", async () => {
    const figures = await figuresOf("nothing", [
      ...two,
      { label: "alone", accuracies: [0.7, 0.7], bytes: 0 },
    ]);
    expect(figures.find(({ name }) => name === "cost")?.text).toContain(
      "Not on this axis: alone, which sent nothing.",
    );
  });

  it("give more than six methods a panel each, and every partition plots of its own", async () => {
    const many = Array.from({ length: 7 }, (_, i) => ({
      label: `m${i}`,
      accuracies: [0.5 + i / 20],
      bytes: 1000,
    }));
    const figures = await figuresOf("many", many, ["IID", "Dirichlet 0.5"]);
    expect(figures.filter(({ chart }) => chart.kind === "panels")).toHaveLength(8);
    expect(new Set(figures.map(({ name }) => name)).size).toBe(figures.length);
  });
});
