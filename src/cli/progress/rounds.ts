import type { Round } from "../../federation/round.ts";
import { bytes } from "../../job/units.ts";
import { bar, clipped, duration, measure } from "./format.ts";
import { type CurrentRound, lossSoFar, type ProgressState, secondsLeft, shareDone } from "./state.ts";
import type { Style } from "./style.ts";
import { type Column, row, widths } from "./table.ts";

/** What held-out data are measured by, in the order of preference for a column of its own. */
const measures: readonly string[] = ["perplexity", "accuracy", "pearson", "mse"];

/** The measure that is shown beside the loss; undefined where there is none. */
export function shownMeasure(metrics: Readonly<Record<string, number>>): string | undefined {
  return (
    measures.find((name) => metrics[name] !== undefined) ??
    Object.keys(metrics).find((name) => name !== "loss")
  );
}

/** The columns of the table of rounds, 79 characters; "in full" is what full weights would have cost. */
export function roundColumns(measureName: string | undefined): Column[] {
  return [
    { title: "round", align: "right", width: 5 },
    { title: "clients", width: 7 },
    { title: "loss", align: "right", width: 6 },
    { title: "held-out", align: "right", width: 8 },
    ...(measureName === undefined ? [] : [{ title: measureName, align: "right" as const, width: 10 }]),
    { title: "down", align: "right", width: 7 },
    { title: "up", align: "right", width: 7 },
    { title: "in full", align: "right", width: 7 },
    { title: "time", align: "right", width: 6 },
  ];
}

/** The titles of the table of rounds. */
export function titleLine(state: ProgressState, style: Style): string {
  const columns = roundColumns(measureOf(state));
  return style.heading(
    row(
      columns,
      columns.map(({ title }) => title),
      widths(columns),
    ),
  );
}

/** The line of the model before any round. */
export function startLine(state: ProgressState): string {
  const name = measureOf(state);
  const before = state.evaluations.get(0) ?? {};
  const columns = roundColumns(name);
  return row(
    columns,
    [
      "start",
      "",
      "",
      measure("loss", before.loss),
      ...(name === undefined ? [] : [measure(name, before[name])]),
    ],
    widths(columns),
  );
}

/** The line of a committed round. */
export function roundLine(round: Round, state: ProgressState): string {
  const name = measureOf(state);
  const columns = roundColumns(name);
  const metrics = state.evaluations.get(round.number) ?? round.evaluation;
  const total = state.header?.rounds ?? round.number;
  return row(
    columns,
    [
      `${round.number}/${total}`,
      `${round.accepted.length}/${round.clients.length}`,
      measure("loss", round.loss),
      measure("loss", metrics.loss),
      ...(name === undefined ? [] : [measure(name, metrics[name])]),
      bytes(round.bytesDown),
      bytes(round.bytesUp),
      bytes(round.bytesFull),
      duration(round.seconds),
    ],
    widths(columns),
  );
}

/** The line of the round under way: a bar, what is in, and when it may be done. */
export function currentLine(state: ProgressState, now: number, width: number): string {
  const { current, header } = state;
  if (current === undefined) return "";
  const share = shareDone(current);
  const spent = now - current.since;
  const expected = secondsLeft(state, now);
  const left =
    expected === undefined
      ? ""
      : `, ${duration(expected.round)} left${current.number < (header?.rounds ?? 0) ? `, run ${duration(expected.run)}` : ""}`;
  const loss = current.accepted.length === 0 ? "" : `, loss ${measure("loss", lossSoFar(current))}`;
  const dropped = current.dropped.length === 0 ? "" : `, ${current.dropped.length} dropped`;
  const total = header?.rounds ?? current.number;
  const text = `${`${current.number}/${total}`.padStart(5)}  ${bar(share, 16)} ${current.accepted.length}/${current.target} clients${dropped}${loss}, ${duration(spent)}${left}`;
  return clipped(text, width);
}

/** What goes on between rounds, on one line. */
export function phaseLine({ phase }: ProgressState, now: number, width: number): string {
  if (phase === undefined) return "";
  const spent = now - phase.since;
  if (phase.fetched === undefined) return clipped(`${" ".repeat(7)}${phase.what}, ${duration(spent)}`, width);
  const { first, done, total } = phase.fetched;
  const left = done > first ? `, ${duration((spent * (total - done)) / (done - first))} left` : "";
  const share = bar(total > 0 ? done / total : 1, 16);
  return clipped(`${" ".repeat(7)}${share} ${bytes(done)} of ${bytes(total)}${left}, ${phase.what}`, width);
}

/** Who is training, on one line. */
export function workingLine({ working }: CurrentRound, width: number): string {
  const parts = [...working].map(([client, share]) => `${client} ${Math.round(100 * share)} %`);
  return parts.length === 0 ? "" : clipped(`${" ".repeat(7)}${parts.join("   ")}`, width);
}

function measureOf(state: ProgressState): string | undefined {
  const first = [...state.evaluations.values()].find((metrics) => Object.keys(metrics).length > 0);
  return shownMeasure(first ?? {});
}
