import { metricNeeds } from "../metrics/metric.ts";
import { decimalsOf, metricNames } from "../metrics/table.ts";
import { cellsOf, figuresOf, headOf } from "./figures.ts";
import type { Cell, RunRow, SweepPlan } from "./sweep.ts";

/** One row for each run, as CSV. */
export function runsCsv(rows: readonly RunRow[]): string {
  const present = metricNames(metricNeeds).filter((name) =>
    rows.some(({ before, after }) => name in before || name in after),
  );
  const head = [
    "method",
    "strategy",
    "partition",
    "partition kind",
    "seed",
    "rounds",
    "steps",
    "ended by",
    "metric protocol",
    ...present.flatMap((name) => [`${name} before`, `${name} after`, `${name} best`]),
    "relative deviation",
    "down (B)",
    "up (B)",
    "time (s)",
    "server (s)",
    "peak memory (B)",
    "threads",
    "failure",
  ];
  const lines = rows.map((row) => [
    row.method,
    row.strategy,
    row.partition,
    row.partitionKind,
    String(row.seed),
    String(row.rounds),
    String(row.steps),
    row.endedBy ?? "",
    row.metricProtocol,
    ...present.flatMap((name) =>
      [row.before, row.after, row.best].map((metrics) => fixed(metrics[name], decimalsOf(name) + 2)),
    ),
    fixed(row.relativeDeviation, 6),
    String(row.bytesDown),
    String(row.bytesUp),
    fixed(row.seconds, 3),
    fixed(row.serverSeconds, 3),
    fixed(row.peakBytes, 0),
    fixed(row.threads, 0),
    row.failure ?? "",
  ]);
  return csv([head, ...lines]);
}

/** One row for each method and partition, as CSV: mean and sample standard deviation of every figure. */
export function tableCsv(plan: SweepPlan, rows: readonly RunRow[]): string {
  const figures = figuresOf(plan);
  const to = `difference to ${plan.methods[0]?.label ?? ""}`;
  const head = [
    "method",
    "strategy",
    "partition",
    "runs",
    "failed",
    ...figures.flatMap((figure) => [headOf(figure), `sd of ${headOf(figure)}`]),
    to,
    `standard error of ${to}`,
    `pairs of ${to}`,
  ];
  const decimals = decimalsOf(plan.metric) + 2;
  const lines = cellsOf(plan, rows).map(
    ({ method, strategy, partition, finished, failed, spreads, difference }) => [
      method,
      strategy,
      partition,
      String(finished),
      String(failed),
      ...spreads.flatMap((spread, i) => {
        const digits = (figures[i]?.decimals ?? 0) + 2;
        return [fixed(spread?.mean, digits), fixed(spread?.deviation, digits)];
      }),
      fixed(difference?.mean, decimals),
      fixed(difference?.standardError, decimals),
      difference === undefined ? "" : String(difference.n),
    ],
  );
  return csv([head, ...lines]);
}

/** One row for each method and partition, as Markdown, below what the numbers mean. */
export function tableMarkdown(plan: SweepPlan, rows: readonly RunRow[], machine: string): string {
  const { head, lines } = tableCells(plan, rows);
  const failures = rows.flatMap(({ run, failure }) =>
    failure === undefined ? [] : [`- ${run} failed: ${failure.split("\n")[0]}`],
  );
  return [
    noteOf(plan, rows, machine),
    "",
    ...markdownTable([head, ...lines]),
    ...(failures.length === 0 ? [] : ["", ...failures]),
    "",
  ].join("\n");
}

/** Head and lines of the table of methods, as text; what no row has is left out, and what is not in `chosen`. */
export function tableCells(
  plan: SweepPlan,
  rows: readonly RunRow[],
  chosen: (title: string) => boolean = () => true,
): { readonly head: readonly string[]; readonly lines: readonly (readonly string[])[] } {
  const cells = cellsOf(plan, rows);
  const figures = figuresOf(plan);
  const shown = figures.flatMap((_, i) => (cells.some(({ spreads }) => spreads[i] !== undefined) ? [i] : []));
  const lead = shown.find((i) => i === 0);
  const others = shown.filter((i) => i > 0 && chosen(figures[i]?.title ?? ""));
  const first = plan.methods[0]?.label ?? "";
  const divided = plan.partitions.length > 1;
  const compared = plan.methods.length > 1;
  const column = (cell: Cell, i: number): string => {
    const spread = cell.spreads[i];
    return plusMinus(spread?.mean, spread?.deviation, figures[i]?.decimals ?? 0);
  };
  const titles = (i: number): string => {
    const figure = figures[i];
    return figure === undefined ? "" : headOf(figure);
  };
  return {
    head: [
      "method",
      ...(divided ? ["partition"] : []),
      "runs",
      ...(lead === undefined ? [] : [titles(lead)]),
      ...(compared ? [`difference to ${first}`] : []),
      ...others.map(titles),
    ],
    lines: cells.map((cell) => [
      cell.method,
      ...(divided ? [cell.partition] : []),
      cell.failed === 0 ? String(cell.finished) : `${cell.finished} of ${cell.finished + cell.failed}`,
      ...(lead === undefined ? [] : [column(cell, lead)]),
      ...(compared ? [differenceText(cell, decimalsOf(plan.metric) + 1)] : []),
      ...others.map((i) => column(cell, i)),
    ]),
  };
}

/** What a reader has to know of the numbers of a sweep. */
export function noteOf(plan: SweepPlan, rows: readonly RunRow[], machine: string): string {
  const { budget, protocol, seeds, workers } = plan;
  const counted = protocol === "last" ? "the value after the last round" : "the best value after any round";
  const short = rows.filter(({ failure, endedBy }) => failure === undefined && endedBy === "rounds").length;
  const limited = budget.rounds === undefined && short > 0;
  const side =
    workers > 1
      ? `${workers} runs went side by side, on one core each where their jobs do not say otherwise`
      : "one run went at a time";
  return [
    `Mean ± sample standard deviation over the seeds ${seeds.join(", ")}; ${counted}.`,
    `Every run had a budget of ${budgetText(budget)}.`,
    ...(limited
      ? [`${short} of ${rows.length} runs ended at their number of rounds before it was used up.`]
      : []),
    "A difference is the mean over the seeds that both methods finished, ± its standard error.",
    `Time is that of the rounds, without evaluation; ${side} (${machine}).`,
  ].join(" ");
}

/** A budget in words. */
export function budgetText({ rounds, bytes, steps }: SweepPlan["budget"]): string {
  if (rounds !== undefined) return rounds === 1 ? "1 round" : `${rounds} rounds`;
  if (bytes !== undefined) return `${bytes / 1e6} MB down and up`;
  return `${steps ?? 0} optimizer steps of all clients`;
}

function differenceText({ difference }: Cell, decimals: number): string {
  const text = plusMinus(difference?.mean, difference?.standardError, decimals);
  return difference !== undefined && Number.parseFloat(text) > 0
    ? `+${text}`
    : text.replace(/^-(?=[0.]+(?: |$))/, "");
}

function plusMinus(mean: number | undefined, spread: number | undefined, decimals: number): string {
  if (mean === undefined) return "-";
  // What every run has alike, such as its rounds, needs no spread.
  return spread === undefined || spread === 0
    ? mean.toFixed(decimals)
    : `${mean.toFixed(decimals)} ± ${spread.toFixed(decimals)}`;
}

function fixed(value: number | undefined, decimals: number): string {
  return value === undefined ? "" : value.toFixed(decimals);
}

/** Lines as CSV (RFC 4180): a field with a comma, a quote or a line end stands in quotes. */
function csv(lines: readonly (readonly string[])[]): string {
  const field = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return lines.map((fields) => `${fields.map(field).join(",")}\r\n`).join("");
}

/** A table whose columns line up, the titles first. */
function markdownTable(rows: readonly (readonly string[])[]): string[] {
  const cells = rows.map((fields) => fields.map((text) => text.replaceAll("|", "\\|")));
  const [head = [], ...lines] = cells;
  const widths = head.map((_, i) => Math.max(3, ...cells.map((fields) => fields[i]?.length ?? 0)));
  const line = (fields: readonly string[]): string =>
    `| ${fields.map((text, i) => text.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...lines.map(line)];
}
