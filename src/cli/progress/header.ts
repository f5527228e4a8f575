import type { RunHeader } from "../../job/events.ts";
import { count, percent, size } from "./format.ts";
import type { Style } from "./style.ts";

/** What a run is about to do, as lines. */
export function headerLines(header: RunHeader, style: Style): string[] {
  const { model, silos, perRound, strategy, heldOut, notes } = header;
  const examples = silos.reduce((sum, silo) => sum + silo.examples, 0);
  const cohort = perRound < silos.length ? `, ${perRound} in a round` : "";
  const facts: [string, string][] = [
    ["model", `${model.path} (${model.family}, ${size(model.parameters)} parameters)`],
    [
      "trains",
      `${header.adapter}: ${size(header.trainable)} parameters, ${percent(header.trainable / model.parameters)} of the model`,
    ],
    ["strategy", `${strategy.name} (${strategy.paper})`],
    ["silos", `${silos.length} with ${count(examples)} training examples${cohort}`],
    ["held out", `${count(heldOut.examples)} examples (${heldOut.split})`],
    ["runs on", `${header.device}: ${workersText(header)} (${header.why})`],
    ["run folder", header.folder],
  ];
  const width = facts.reduce((most, [name]) => Math.max(most, name.length), 0);
  return [
    style.heading(
      `${header.name}: ${header.rounds} ${header.rounds === 1 ? "round" : "rounds"}, ${header.task}`,
    ),
    ...facts.map(([name, text]) => `  ${style.quiet(name.padEnd(width))}  ${text}`),
    "",
    ...header.picture.split("\n").map((line) => `  ${line}`),
    ...notes.map((note) => `  ${style.quiet("note:")} ${note}`),
    "",
  ];
}

function workersText({ workers, threads }: RunHeader): string {
  const side = workers === 1 ? "1 worker" : `${workers} workers`;
  return `${side}, ${threads} ${threads === 1 ? "thread" : "threads"} each`;
}
