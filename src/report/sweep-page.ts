import { machineText } from "../sweep/sweep-files.node.ts";
import type { Figure } from "./chart.ts";
import type { DrawnFigure, Page, PageSection, PageTable } from "./page.ts";
import { sweepPlots } from "./sweep-figures.ts";
import type { SweepDocument, SweepRecord } from "./sweep-record.node.ts";
import { counted, figure } from "./text.ts";

/** The report of a sweep; `draw` makes the plots. */
export function sweepPage(record: SweepRecord, draw: (figure: Figure) => DrawnFigure): Page {
  const { sweep } = record;
  const { rows, runs, methods, partitions, seeds, metric, metricProtocol, machine } = sweep;
  const failed = rows.filter(({ failure }) => failure !== undefined);
  const several = partitions.length > 1;
  return {
    title: `${sweep.name}: ${counted(methods.length, "method")} compared`,
    lead: `${rows.length} of ${counted(runs.length, "run")} are done${failed.length > 0 ? `, ${failed.length} of them failed` : ""}: ${counted(methods.length, "method")}, ${counted(partitions.length, "partition")}, ${counted(seeds.length, "seed")}.`,
    facts: [
      ["Methods", methods.map(({ label }) => label).join(", ")],
      ["Partitions", partitions.map(({ label }) => label).join(", ")],
      ["Seeds", seeds.join(", ")],
      ["Budget of a run", budgetText(sweep)],
      [
        "What counts",
        `${metric}, ${metricProtocol === "best" ? "the best value after any round" : "after the last round"}`,
      ],
      ["Machine", machineText(machine)],
      [
        "Versions",
        Object.entries(machine.versions)
          .map(([name, version]) => `${name} ${version}`)
          .join(", "),
      ],
    ],
    sections: [
      ...sweepPlots(record).map(
        ({ partition, figures }): PageSection => ({
          title: several ? `Partition ${partition}` : "Methods",
          figures: figures.map(draw),
          notes: figures.length === 0 ? ["No run of this partition has finished."] : [],
        }),
      ),
      {
        title: "Table",
        notes: [
          "Means over seeds; after ± the sample standard deviation. The difference is to the first method over common seeds, with its standard error.",
        ],
        tables: tablesOf(sweep),
      },
      ...(failed.length === 0
        ? []
        : [
            {
              title: "Runs that failed",
              tables: [
                {
                  head: ["method", "partition", "seed", "reason"],
                  words: [0, 1, 3],
                  rows: failed.map(({ method, partition, seed, failure = "" }) => [
                    method,
                    partition,
                    String(seed),
                    failure,
                  ]),
                },
              ],
            },
          ]),
      {
        title: "To repeat it",
        notes: ["Finished runs are kept; --fresh runs all of them again."],
        listing: "tributary sweep sweep.yaml --fresh\ntributary report FOLDER",
      },
    ],
  };
}

function tablesOf({ table, partitions, methods }: SweepDocument): PageTable[] {
  const heads = [...new Set(table.flatMap(({ figures }) => Object.keys(figures)))];
  const reference = methods[0]?.label ?? "the first method";
  return partitions.map(({ label }) => ({
    ...(partitions.length > 1 ? { title: `Partition ${label}` } : {}),
    head: ["method", "runs", ...heads, `difference to ${reference}`],
    rows: table
      .filter(({ partition }) => partition === label)
      .map(({ method, finished, failed, figures, difference }) => [
        method,
        failed > 0 ? `${finished}, ${failed} failed` : String(finished),
        ...heads.map((head) => spreadText(figures[head]?.mean, figures[head]?.deviation)),
        spreadText(difference?.mean, difference?.standardError),
      ]),
  }));
}

function spreadText(mean: number | undefined, deviation: number | undefined): string {
  if (mean === undefined) return "-";
  return deviation === undefined ? figure(mean) : `${figure(mean)} ± ${figure(deviation)}`;
}

function budgetText({ budget: { rounds, bytes, steps } }: SweepDocument): string {
  const parts = [
    ...(rounds === undefined ? [] : [counted(rounds, "round")]),
    ...(bytes === undefined ? [] : [`${bytes} bytes down and up`]),
    ...(steps === undefined ? [] : [`${steps} optimizer steps of all clients`]),
  ];
  return parts.join(", ");
}
