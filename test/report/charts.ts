import type { Chart } from "../../src/report/chart.ts";

/** Text that would do harm as markup, and that XML cannot carry. */
export const hostile = `<script>alert("x")</script> & ]]> 'y' \u0000\ud800\u202e`;

/** Two lines of few points. */
export const line: Extract<Chart, { kind: "lines" }> = {
  kind: "lines",
  x: { title: "round", whole: true },
  y: { title: "loss" },
  lines: [
    {
      name: "one",
      points: [
        [0, 1],
        [1, 2],
        [2, 5],
      ],
    },
    {
      name: "two",
      points: [
        [0, 4],
        [2, 1],
      ],
      band: {
        lower: [
          [0, 3],
          [2, 1],
        ],
        upper: [
          [0, 5],
          [2, 2],
        ],
      },
    },
  ],
};

/** One chart of every kind, all names in it untrusted. */
export const every: readonly Chart[] = [
  line,
  { ...line, kind: "panels" },
  {
    kind: "lines",
    x: { title: hostile },
    y: { title: hostile, log: true },
    lines: [
      {
        name: hostile,
        points: [
          [1, 1],
          [2, 100],
        ],
      },
    ],
  },
  {
    kind: "panels",
    x: { title: hostile, log: true, unit: "bytes" },
    y: { title: hostile },
    lines: [{ name: hostile, points: [[1e3, 1]] }],
  },
  {
    kind: "points",
    x: { title: hostile, log: true, unit: "bytes" },
    y: { title: hostile },
    groups: [
      {
        name: hostile,
        points: [
          [0, 1],
          [1e6, 2],
        ],
      },
    ],
  },
  {
    kind: "rows",
    x: { title: hostile },
    rows: [
      { name: hostile, values: [1, 2] },
      { name: "none", values: [] },
    ],
  },
  { kind: "bars", x: { title: hostile }, bars: [{ name: hostile, value: 3 }] },
  {
    kind: "heat",
    x: hostile,
    columns: [hostile, "b"],
    rows: [hostile],
    title: hostile,
    cells: [{ row: 0, column: 1, value: 2 }],
  },
];
