import type { RunHeader } from "../../job/events.ts";
import { bytes, count } from "../../job/units.ts";
import { hanging, percent, shortPath, size } from "./format.ts";
import type { Style } from "./style.ts";

export interface HeaderOptions {
  readonly style: Style;
  /** Characters in a line, where words allow it. Default: lines stay whole. */
  readonly width?: number;
  /** The working folder, below which paths are shown short. */
  readonly cwd?: string | undefined;
}

/** What a run is about to do, as lines. */
export function headerLines(
  header: RunHeader,
  { style, width = Number.POSITIVE_INFINITY, cwd }: HeaderOptions,
): string[] {
  const { model, silos, perRound, strategy, heldOut, notes } = header;
  const examples = silos.reduce((sum, silo) => sum + silo.examples, 0);
  const cohort = perRound < silos.length ? `, ${perRound} in a round` : "";
  const facts: [string, string][] = [
    ["model", `${shortPath(model.path, cwd)} (${model.family}, ${size(model.parameters)} parameters)`],
    [
      "trains",
      `${header.adapter}: ${size(header.trainable)} parameters, ${percent(header.trainable / model.parameters)} of the model`,
    ],
    ["strategy", `${strategy.name} (${strategy.paper})`],
    ["silos", `${silos.length} with ${count(examples)} training examples${cohort}`],
    [
      "held out",
      heldOut.examples === 0 ? "nothing" : `${count(heldOut.examples)} examples (${heldOut.split})`,
    ],
    ["runs on", `${header.device}: ${workersText(header)} (${header.why})`],
    ...(header.budget === undefined
      ? []
      : [["budget", budgetText(header.budget)] satisfies [string, string]]),
    ["run folder", shortPath(header.folder, cwd)],
  ];
  const nameWidth = facts.reduce((most, [name]) => Math.max(most, name.length), 0);
  const under = (name: string, text: string): string[] =>
    hanging(`  ${name}  `, text, width).map((line, i) =>
      i === 0 ? `  ${style.quiet(name)}  ${line}` : line,
    );
  return [
    style.heading(
      `${header.name}: ${header.rounds} ${header.rounds === 1 ? "round" : "rounds"}, ${header.task}`,
    ),
    ...facts.flatMap(([name, text]) => under(name.padEnd(nameWidth), text)),
    "",
    ...header.picture.split("\n").map((line) => `  ${line}`),
    ...notes.flatMap((note) => under("note", note)),
    "",
  ];
}

function budgetText({ bytes: most, steps }: NonNullable<RunHeader["budget"]>): string {
  const what = most === undefined ? `${count(steps ?? 0)} optimizer steps` : `${bytes(most)} down and up`;
  return `${what}; the run ends after the round in which it is used up`;
}

function workersText({ workers, threads }: RunHeader): string {
  const side = workers === 1 ? "1 worker" : `${workers} workers`;
  return `${side}, ${threads} ${threads === 1 ? "thread" : "threads"} each`;
}
