import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { TributaryError } from "../../errors.ts";
import { writeFileAtomic } from "../../formats/files.node.ts";
import { withTable } from "../../sweep/insert.ts";
import { planSweep } from "../../sweep/plan.node.ts";
import { runSweep, type SweepEvent } from "../../sweep/run-sweep.node.ts";
import type { RunRow, SweepPlan } from "../../sweep/sweep.ts";
import { sweepFiles } from "../../sweep/sweep-files.node.ts";
import { tableCells } from "../../sweep/tables.ts";
import type { Command } from "../command.ts";
import { interrupted } from "../exit.ts";
import { numberFlag } from "../number-flag.ts";
import { shortPath } from "../progress/format.ts";
import { openSweepDisplay } from "../progress/sweep.ts";
import { table } from "../progress/table.ts";
import { lines, type Terminal } from "../terminal.ts";
import { readVersions } from "./version.ts";

/** `tributary sweep`. */
export const sweep: Command = {
  name: "sweep",
  summary: "compare methods over seeds and partitions under one budget; goes on where it stopped",
  usage: "SWEEP [flags]",
  arguments: [1, 1],
  flags: [
    { name: "out", value: "DIR", description: "where the runs and tables go (default: runs/NAME-sweep)" },
    {
      name: "workers",
      value: "N",
      description: "runs side by side (default: one a core); 1 gives each run all cores",
    },
    {
      name: "into",
      value: "FILE",
      description: "write the table between <!-- sweep: NAME --> and <!-- end of sweep --> of a document",
    },
    { name: "fresh", description: "delete the runs of the sweep and start anew" },
  ],
  examples: [
    ["tributary sweep sweep.yaml", "run all of it, or what is left"],
    ["tributary sweep sweep.yaml --workers 1", "one run at a time, on all cores"],
    ["tributary sweep sweep.yaml --into README.md", "keep the table of a document"],
    ["tributary sweep sweep.yaml --json > events.jsonl", "one event a line"],
  ],
  async run({ positionals: [path = ""], flags }, { terminal, signal, json, onInterrupt }) {
    const workers = numberFlag(flags, "workers", {
      fallback: availableParallelism(),
      minimum: 1,
      whole: true,
    });
    const out = flags.get("out");
    const plan = await planSweep({ path, cwd: terminal.cwd, workers, ...(out === undefined ? {} : { out }) });
    const into = flags.get("into");
    const document = into === undefined ? undefined : resolve(terminal.cwd, into);
    // Nobody should wait for hours to learn that there is no place for the table.
    if (document !== undefined) withTable(await readDocument(document), "", plan.name, document);
    const display = openSweepDisplay({ ...terminal, write: terminal.out, live: terminal.live && !json, now });
    const timer = terminal.live && !json ? setInterval(display.tick, 500) : undefined;
    timer?.unref();
    const again =
      "stopping every run after its current step; run the same command to go on (Ctrl-C again to stop at once)";
    onInterrupt(() => (json ? terminal.err(`${again}\n`) : display.say(again)));
    try {
      const rows = await runSweep(plan, {
        program: [process.execPath, ...process.execArgv, process.argv[1] ?? ""],
        versions: await readVersions(),
        signal,
        fresh: flags.has("fresh"),
        onEvent: (event) =>
          json ? terminal.out(`${JSON.stringify(recordOf(event))}\n`) : display.show(event),
      });
      if (document !== undefined) await insert(document, plan);
      if (!json) terminal.out(lines(resultLines(plan, rows, terminal)));
      refuseFailures(plan, rows);
    } catch (error) {
      if (signal.aborted)
        throw interrupted(`stopped; everything is kept in ${plan.folder}, run the same command to go on`);
      throw error;
    } finally {
      clearInterval(timer);
    }
  },
};

/** The figures that fit a terminal beside the leading one; the tables in the folder have all. */
const shown: readonly string[] = ["down", "up", "time", "peak memory"];

/** Seconds of a clock that never goes back. */
function now(): number {
  return performance.now() / 1000;
}

/** An event as machines read it: runs by their id. */
function recordOf(event: SweepEvent): object {
  return "run" in event ? { ...event, run: event.run.id } : event;
}

function resultLines(plan: SweepPlan, rows: readonly RunRow[], { style, cwd }: Terminal): string[] {
  const { head, lines: cells } = tableCells(plan, rows, (title) => shown.includes(title));
  const columns = head.map((title, i) => ({
    title,
    align: i === 0 ? ("left" as const) : ("right" as const),
  }));
  const [titles = "", ...below] = table(columns, cells);
  const at = (file: string): string => shortPath(join(plan.folder, file), cwd);
  return [
    "",
    style.heading(titles),
    ...below,
    "",
    `tables: ${at(sweepFiles.markdown)}, ${at(sweepFiles.csv)}; runs: ${at(sweepFiles.runs)}`,
  ];
}

function refuseFailures({ runs, folder }: SweepPlan, rows: readonly RunRow[]): void {
  const failed = rows.filter(({ failure }) => failure !== undefined);
  if (failed.length === 0) return;
  const reasons = failed.map(({ run, failure = "" }) => `  ${run}: ${failure.split("\n")[0]}`);
  throw new TributaryError(
    "runs-failed",
    [
      `${failed.length} of ${runs.length} runs in ${folder} failed; the same command tries them again`,
      ...reasons,
    ].join("\n"),
  );
}

async function readDocument(path: string): Promise<string> {
  return readFile(path, "utf8").catch((cause: unknown) => {
    throw new TributaryError("missing-file", `${path}: cannot be read; give --into a document that exists`, {
      cause,
    });
  });
}

async function insert(document: string, { folder, name }: SweepPlan): Promise<void> {
  const made = await readFile(join(folder, sweepFiles.markdown), "utf8");
  const text = withTable(await readDocument(document), made, name, document);
  await writeFileAtomic(document, new TextEncoder().encode(text));
}
