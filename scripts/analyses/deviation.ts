import { watchPresidents } from "./federation.ts";
import type { Findings } from "./output.ts";
import { layerOf, mean } from "./statistics.ts";

interface Measured {
  readonly steps: number;
  readonly round: number;
  readonly module: string;
  readonly deviation: number;
  readonly relative: number;
}

/** How far FedIT's mean of factors is from the mean of the clients' weights: by layer, round and local steps. */
export async function deviation(): Promise<Findings> {
  const measured: Measured[] = [];
  for (const steps of [1, 4, 12]) {
    const { rounds } = await watchPresidents({ rounds: 4, clientsPerRound: 6, local: localOf(steps) }, {});
    for (const { number, measurements } of rounds) {
      for (const [name, value] of Object.entries(measurements)) {
        const module = /^deviation\/(.*)$/.exec(name)?.[1];
        if (module === undefined) continue;
        const relative = measurements[`relativeDeviation/${module}`] ?? Number.NaN;
        measured.push({ steps, round: number, module, deviation: value, relative });
      }
    }
  }
  const of = (keep: (row: Measured) => boolean): number =>
    mean(measured.filter(keep).map((row) => row.relative));
  const distinct = (key: (row: Measured) => number): number[] =>
    [...new Set(measured.map(key))].sort((a, b) => a - b);
  const steps = distinct((row) => row.steps);
  const rounds = distinct((row) => row.round);
  const layers = distinct((row) => layerOf(row.module));
  return {
    title: "Deviation of the averaged factors",
    text: `FedIT on the presidents' silos, rank 16, 6 clients in a round, batches of 4. The deviation of a module is |sum p_k W_k - W|, the distance between the mean of the clients' weights and the weight that the averaged factors give; it is divided by the norm of the mean of the clients' updates.`,
    values: {
      columns: ["local steps", "round", "module", "deviation", "relative deviation"],
      rows: measured.map((row) => [row.steps, row.round, row.module, row.deviation, row.relative]),
    },
    summary: {
      columns: [
        "local steps",
        ...rounds.map((round) => `round ${round}`),
        ...layers.map((layer) => `layer ${layer}, last round`),
      ],
      rows: steps.map((count) => [
        count,
        ...rounds.map((round) => of((row) => row.steps === count && row.round === round)),
        ...layers.map((layer) =>
          of((row) => row.steps === count && row.round === rounds.at(-1) && layerOf(row.module) === layer),
        ),
      ]),
    },
    figures: [
      {
        name: "by-round",
        title: "Relative deviation by round",
        text: "Mean over all modules, one line for each number of local steps.",
        chart: {
          kind: "lines",
          x: { title: "round", whole: true },
          y: { title: "relative deviation", log: true },
          lines: steps.map((count) => ({
            name: `${count} steps`,
            points: rounds.map(
              (round) => [round, of((row) => row.steps === count && row.round === round)] as const,
            ),
          })),
        },
      },
      {
        name: "by-layer",
        title: "Relative deviation by layer",
        text: "Mean over the modules of a layer in the last round, one line for each number of local steps.",
        chart: {
          kind: "lines",
          x: { title: "layer", whole: true },
          y: { title: "relative deviation", log: true },
          lines: steps.map((count) => ({
            name: `${count} steps`,
            points: layers.map(
              (layer) =>
                [
                  layer,
                  of(
                    (row) =>
                      row.steps === count && row.round === rounds.at(-1) && layerOf(row.module) === layer,
                  ),
                ] as const,
            ),
          })),
        },
      },
    ],
  };
}

function localOf(steps: number): object {
  return {
    optimizer: { name: "adamw", learningRate: 3e-3, weightDecay: 0 },
    steps,
    batchSize: 4,
    clipNorm: 1,
  };
}
