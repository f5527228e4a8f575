import { decimalsOf } from "../metrics/table.ts";
import { pairedDifference, spreadOf } from "./statistics.ts";
import type { Cell, MetricProtocol, RunRow, SweepPlan } from "./sweep.ts";

/** A number that every run has. */
export interface Figure {
  readonly title: string;
  readonly unit?: string;
  /** Digits after the point. */
  readonly decimals: number;
  value(row: RunRow): number | undefined;
}

/** The value of a measure that counts in a comparison. */
export function countedValue(row: RunRow, metric: string, protocol: MetricProtocol): number | undefined {
  return (protocol === "best" ? row.best : row.after)[metric];
}

/** The figures of a table, the measure that leads it first. */
export function figuresOf({ metric, protocol }: Pick<SweepPlan, "metric" | "protocol">): Figure[] {
  const others = metric === "loss" ? [] : ["loss"];
  return [
    {
      title: `${metric} ${protocol}`,
      decimals: decimalsOf(metric),
      value: (row) => countedValue(row, metric, protocol),
    },
    { title: `${metric} before`, decimals: decimalsOf(metric), value: ({ before }) => before[metric] },
    ...others.map((name) => ({
      title: `${name} ${protocol}`,
      decimals: decimalsOf(name),
      value: (row: RunRow) => countedValue(row, name, protocol),
    })),
    { title: "relative deviation", decimals: 4, value: ({ relativeDeviation }) => relativeDeviation },
    { title: "rounds", decimals: 1, value: ({ rounds }) => rounds },
    { title: "steps", decimals: 1, value: ({ steps }) => steps },
    { title: "down", unit: "MB", decimals: 3, value: ({ bytesDown }) => bytesDown / 1e6 },
    { title: "up", unit: "MB", decimals: 3, value: ({ bytesUp }) => bytesUp / 1e6 },
    { title: "time", unit: "s", decimals: 1, value: ({ seconds }) => seconds },
    { title: "server", unit: "s", decimals: 3, value: ({ serverSeconds }) => serverSeconds },
    {
      title: "peak memory",
      unit: "MB",
      decimals: 0,
      value: ({ peakBytes }) => (peakBytes === undefined ? undefined : peakBytes / 1e6),
    },
  ];
}

/** What a figure is called in the head of a column. */
export function headOf({ title, unit }: Pick<Figure, "title" | "unit">): string {
  return unit === undefined ? title : `${title} (${unit})`;
}

/** One cell for each method and partition, in the order of the sweep. */
export function cellsOf(plan: SweepPlan, rows: readonly RunRow[]): Cell[] {
  const figures = figuresOf(plan);
  const bySeed = (some: readonly RunRow[]): ReadonlyMap<number, number> =>
    new Map(
      some.flatMap((row) => {
        const value = countedValue(row, plan.metric, plan.protocol);
        return value === undefined ? [] : [[row.seed, value] as const];
      }),
    );
  return plan.partitions.flatMap(({ label: partition }) =>
    plan.methods.map(({ label: method }, i): Cell => {
      const ofMethod = (name: string | undefined): RunRow[] =>
        rows.filter((row) => row.method === name && row.partition === partition);
      const own = ofMethod(method);
      const finished = own.filter(({ failure }) => failure === undefined);
      const first = ofMethod(plan.methods[0]?.label).filter(({ failure }) => failure === undefined);
      const difference = i === 0 ? undefined : pairedDifference(bySeed(finished), bySeed(first));
      return {
        method,
        partition,
        strategy: own[0]?.strategy ?? "",
        finished: finished.length,
        failed: own.length - finished.length,
        spreads: figures.map(({ value }) => spreadOf(finished.flatMap((row) => value(row) ?? []))),
        ...(difference === undefined ? {} : { difference }),
      };
    }),
  );
}
