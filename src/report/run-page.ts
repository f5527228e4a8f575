import { bytes, count } from "../job/units.ts";
import type { Figure } from "./chart.ts";
import type { DrawnFigure, Page, PageSection, PageTable } from "./page.ts";
import { heldOutCurves, type RunPlots, runSections } from "./run-figures.ts";
import type { RunRecord } from "./run-record.node.ts";
import { counted, duration, figure } from "./text.ts";

/** The report of a run; `draw` makes the plots. */
export function runPage(
  run: RunRecord,
  ranks: RunPlots["ranks"],
  draw: (figure: Figure) => DrawnFigure,
): Page {
  const { job, rounds, header, manifest, summary, jobText } = run;
  const silos =
    header?.silos ?? manifest.clients.map(({ id, numExamples }) => ({ name: id, examples: numExamples }));
  const before = summary?.before ?? {};
  const sections = runSections({ rounds, silos, before, ranks }).map(
    ({ title, figures, notes = [] }): PageSection => ({ title, figures: figures.map(draw), notes }),
  );
  return {
    title: `${job.name}: ${header?.strategy.name ?? job.strategy.name}`,
    lead: leadOf(run, before),
    facts: factsOf(run, silos),
    sections: [
      ...sections,
      { title: "Clients that were dropped", ...droppedPart(run) },
      { title: "Rounds", tables: [roundsTable(run)] },
      {
        title: "To repeat it",
        notes: [
          "With the model and the data where the job says, the same seed and the same versions give the same bytes.",
        ],
        listing: `tributary run job.resolved.yaml --out again\ntributary verify .\ntributary report .`,
      },
      { title: "Job", listing: jobText.trimEnd() },
    ],
  };
}

function leadOf({ job, rounds, header }: RunRecord, before: Readonly<Record<string, number>>): string {
  const last = [...heldOutCurves(rounds, before)].flatMap(([name, points]) => {
    const [first, end] = [points[0], points.at(-1)];
    if (first === undefined || end === undefined) return [];
    return [
      first === end ? `${name} ${figure(end[1])}` : `${name} from ${figure(first[1])} to ${figure(end[1])}`,
    ];
  });
  const done =
    rounds.length < job.rounds ? `${rounds.length} of ${job.rounds} rounds` : counted(rounds.length, "round");
  const sent = rounds.reduce((sum, { bytesDown, bytesUp }) => sum + bytesDown + bytesUp, 0);
  const seconds = rounds.reduce((sum, round) => sum + round.seconds, 0);
  return `${done} of ${header?.strategy.name ?? job.strategy.name} took ${duration(seconds)} and sent ${bytes(sent)}.${last.length === 0 ? "" : ` On held-out data: ${last.join("; ")}.`}`;
}

function factsOf(
  { job, header, manifest }: RunRecord,
  silos: readonly { readonly examples: number }[],
): [string, string][] {
  const paths = typeof job.data.path === "string" ? [job.data.path] : job.data.path;
  const optimizer = `${job.local.optimizer.name}, learning rate ${job.local.optimizer.learningRate}`;
  const length =
    job.local.steps === undefined
      ? counted(job.local.epochs ?? 1, "epoch")
      : counted(job.local.steps, "step");
  const facts: [string, string | undefined][] = [
    ["Strategy", header?.strategy.name ?? job.strategy.name],
    ["Paper", header?.strategy.paper],
    [
      "Model",
      `${baseName(header?.model.path ?? job.model)}${header === undefined ? "" : ` (${header.model.family}, ${count(header.model.parameters)} parameters)`}`,
    ],
    ["Weights of the model, SHA-256", manifest.base],
    ["Task", job.task],
    [
      "Trained",
      header === undefined
        ? job.adapter.kind
        : `${header.adapter}, ${counted(header.trainable, "parameter")}`,
    ],
    ["Data", paths.map(baseName).join(", ")],
    [
      "Clients",
      `${counted(silos.length, "client")}, ${job.partition.kind}${header === undefined ? "" : `, ${header.perRound} in a round`}`,
    ],
    ["Local training", `${length} a round, batches of ${job.local.batchSize}, ${optimizer}`],
    [
      "Held out",
      header === undefined
        ? undefined
        : `${counted(header.heldOut.examples, "example")} (${header.heldOut.split})`,
    ],
    ["Seed", String(manifest.seed)],
    [
      "Machine",
      header === undefined
        ? undefined
        : `${header.device}, ${counted(header.workers, "worker")} with ${counted(header.threads, "thread")}`,
    ],
    [
      "Versions",
      Object.entries(manifest.versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(", "),
    ],
    ["Notes", header === undefined || header.notes.length === 0 ? undefined : header.notes.join("; ")],
  ];
  return facts.flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, value]]));
}

function droppedPart({ rounds }: RunRecord): Pick<PageSection, "notes" | "tables"> {
  const dropped = rounds.flatMap(({ number, rejected }) => rejected.map((one) => ({ number, ...one })));
  const failed = rounds.filter(({ failedAttempts }) => failedAttempts > 0);
  const attempts = failed.map(
    ({ number, failedAttempts }) => `Round ${number} needed ${counted(failedAttempts, "further attempt")}.`,
  );
  if (dropped.length === 0) return { notes: ["No client failed, and no update was refused.", ...attempts] };
  return {
    notes: attempts,
    tables: [
      {
        head: ["round", "client", "code", "reason"],
        words: [1, 2, 3],
        rows: dropped.map(({ number, client, code, reason }) => [String(number), client, code, reason]),
      },
    ],
  };
}

function roundsTable({ rounds }: RunRecord): PageTable {
  const names = [...heldOutCurves(rounds, {}).keys()];
  return {
    head: ["round", "clients", "loss", ...names.map((name) => `held-out ${name}`), "down", "up", "seconds"],
    words: [],
    rows: rounds.map((round) => [
      String(round.number),
      `${round.accepted.length} of ${round.clients.length}`,
      figure(round.loss ?? undefined),
      ...names.map((name) => figure(round.evaluation[name])),
      bytes(round.bytesDown),
      bytes(round.bytesUp),
      figure(round.seconds),
    ]),
  };
}

function baseName(path: string): string {
  return (
    path
      .split(/[\\/]/)
      .filter((part) => part !== "")
      .at(-1) ?? path
  );
}
