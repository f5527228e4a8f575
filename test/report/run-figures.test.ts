import { describe, expect, it } from "vitest";
import type { Chart, Figure } from "../../src/report/chart.ts";
import { type RunPlots, runSections } from "../../src/report/run-figures.ts";
import { round } from "./folders.ts";

const plain: RunPlots = {
  rounds: [round(1), round(2), round(3)],
  silos: [
    { name: "a", examples: 10, labels: { "0": 9, "10": 1 } },
    { name: "b", examples: 20, labels: { "0": 5, "2": 15 } },
  ],
  before: { loss: 2.5, accuracy: 0.5 },
  ranks: "not measured",
};

function figuresOf(run: RunPlots): ReadonlyMap<string, Figure> {
  const all = runSections(run).flatMap(({ figures }) => figures);
  expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
  return new Map(all.map((figure) => [figure.name, figure]));
}

function chartOf<K extends Chart["kind"]>(run: RunPlots, name: string, kind: K): Extract<Chart, { kind: K }> {
  const chart = figuresOf(run).get(name)?.chart;
  expect(chart?.kind).toBe(kind);
  return chart as Extract<Chart, { kind: K }>;
}

describe("the plots of a run", () => {
  it("show the loss of the clients and on held-out data by round, from before round 1", () => {
    expect(chartOf(plain, "loss", "lines").lines).toEqual([
      {
        name: "clients",
        points: [
          [1, 2.5],
          [2, 2],
          [3, 1.5],
        ],
      },
      {
        name: "held-out",
        points: [
          [0, 2.5],
          [1, 2.25],
          [2, 2],
          [3, 1.75],
        ],
      },
    ]);
    expect(figuresOf(plain).get("loss")?.text).toBe(
      "The mean loss of the clients while they trained went from 2.5 in round 1 to 1.5 in round 3. The loss on held-out data went from 2.5 before round 1 to 1.75 in round 3.",
    );
  });

  it("show what is held out against the bytes of all rounds so far", () => {
    const [line] = chartOf(plain, "traffic-held-out-loss", "lines").lines;
    expect(line?.points).toEqual([
      [0, 2.5],
      [3000, 2.25],
      [6000, 2],
      [9000, 1.75],
    ]);
    expect(figuresOf(plain).get("traffic-held-out-loss")?.text).toContain(
      "9.00 kB went down and up in 3 rounds; the same exchanges with the full weights would have been 270 kB.",
    );
  });

  it("show who holds how many examples, and of which labels, ordered by number", () => {
    expect(chartOf(plain, "holdings", "bars").bars).toEqual([
      { name: "a", value: 10 },
      { name: "b", value: 20 },
    ]);
    const { columns, rows, cells } = chartOf(plain, "labels", "heat");
    expect([columns, rows]).toEqual([
      ["0", "2", "10"],
      ["a", "b"],
    ]);
    expect(cells.map(({ value }) => value)).toEqual([0.9, 0, 0.1, 0.25, 0.75, 0]);
  });

  it("show a line for each of a few clients, and the spread of many", () => {
    expect(
      chartOf(plain, "client-norm", "lines").lines.map(({ name, points }) => [
        name,
        points.map(([, y]) => y),
      ]),
    ).toEqual([
      ["a", [1, 1, 1]],
      ["b", [2, 2, 2]],
    ]);
    const accepted = Array.from({ length: 9 }, (_, i) => ({
      client: `c${i}`,
      numExamples: 1,
      norm: i,
      loss: 1,
      metrics: {},
      bytes: 1,
    }));
    const [range, middle] = chartOf(
      { ...plain, rounds: [round(1, { accepted })] },
      "client-norm",
      "lines",
    ).lines;
    expect(range?.band).toEqual({ lower: [[1, 0]], upper: [[1, 8]] });
    expect(middle).toEqual({ name: "median", points: [[1, 4]], band: { lower: [[1, 2]], upper: [[1, 6]] } });
  });

  it("show the deviation of few modules as lines, of many as shades, without the part that all names share", () => {
    const measured = (modules: number) =>
      [1, 2].map((number) =>
        round(number, {
          measurements: Object.fromEntries(
            Array.from({ length: modules }, (_, i) => [
              `relativeDeviation/model.layers.${i}.q_proj`,
              number + i / 8,
            ]),
          ),
        }),
      );
    expect(chartOf({ ...plain, rounds: measured(2) }, "deviation", "lines").lines).toEqual([
      {
        name: "0.q_proj",
        points: [
          [1, 1],
          [2, 2],
        ],
      },
      {
        name: "1.q_proj",
        points: [
          [1, 1.125],
          [2, 2.125],
        ],
      },
    ]);
    const { rows, columns, cells } = chartOf({ ...plain, rounds: measured(7) }, "deviation", "heat");
    expect([rows.length, rows[6], columns, cells.length]).toEqual([7, "6.q_proj", ["1", "2"], 14]);
    expect(cells).toContainEqual({ row: 6, column: 1, value: 2.75 });
  });

  it("say that an aggregate is exact where it does not deviate", () => {
    const rounds = [round(1, { measurements: { "relativeDeviation/m": 0 } })];
    expect(figuresOf({ ...plain, rounds }).get("deviation")?.text).toContain(
      "It is 0 in every round: the aggregate is exact",
    );
  });

  it("show the mean rank over modules with its range", () => {
    const ranks = {
      modules: 2,
      skipped: 4,
      measured: [
        {
          round: 1,
          ranks: [
            { rank: 4, effective: 2 },
            { rank: 8, effective: 3 },
          ],
        },
      ],
    };
    expect(chartOf({ ...plain, ranks }, "rank", "lines").lines).toEqual([
      { name: "numerical", points: [[1, 6]], band: { lower: [[1, 4]], upper: [[1, 8]] } },
      { name: "effective", points: [[1, 2.5]], band: { lower: [[1, 2]], upper: [[1, 3]] } },
    ]);
    expect(figuresOf({ ...plain, ranks }).get("rank")?.text).toContain("2 of 6 modules");
  });

  it("show the seconds of every phase", () => {
    const { lines, y } = chartOf(plain, "seconds", "lines");
    expect(y.log).toBe(true);
    expect(lines.map(({ name, points }) => [name, points[0]])).toEqual([
      ["training", [1, 1.25]],
      ["aggregation", [1, 0.2]],
      ["commit", [1, 0.05]],
    ]);
  });

  it("leave out what was not measured, and say so", () => {
    const rounds = [1, 2].map((number) => round(number, { evaluation: {}, loss: Number.NaN }));
    const run = { ...plain, rounds, before: {}, silos: [] };
    const names = [...figuresOf(run).keys()];
    expect(names).toEqual(["client-loss", "client-norm", "client-examples", "seconds"]);
    const notes = runSections(run).flatMap(({ notes = [] }) => notes);
    expect(notes).toContain("Nothing was measured on held-out data in this run.");
    expect(notes).toContain("not measured");
  });

  it("take the training loss against bytes where nothing is held out", () => {
    const rounds = [1, 2].map((number) => round(number, { evaluation: {} }));
    const [line] = chartOf({ ...plain, rounds, before: {} }, "traffic-loss-of-the-clients", "lines").lines;
    expect(line?.points).toEqual([
      [3000, 2.5],
      [6000, 2],
    ]);
  });
});
