import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import { writeFileAtomic } from "../formats/files.node.ts";
import { jobDifferences } from "../job/differences.ts";
import { readResolvedJob } from "../job/load.node.ts";
import { described, JobError, type Problem, problemLine } from "../job/problem.ts";
import { readRounds, readSummary } from "../job/run-files.node.ts";
import { lockRun, type RunLock } from "../storage/run-lock.ts";
import { cellsOf, figuresOf, headOf } from "./figures.ts";
import type { RunRecord } from "./results.ts";
import type { RunRow, SweepDocument, SweepMachine, SweepPlan, SweepRun } from "./sweep.ts";
import { runsCsv, tableCsv, tableMarkdown } from "./tables.ts";

/** Names of the files in the folder of a sweep. */
export const sweepFiles: {
  readonly sweep: "sweep.json";
  readonly runs: "runs.csv";
  readonly csv: "table.csv";
  readonly markdown: "table.md";
} = { sweep: "sweep.json", runs: "runs.csv", csv: "table.csv", markdown: "table.md" };

/**
 * Takes the folder of a sweep, emptied first where it should start anew. Throws TributaryError `folder-in-use` where it holds
 * something else, `run-locked` where another process works in it.
 */
export async function openSweepFolder(
  folder: string,
  { fresh }: { readonly fresh: boolean },
): Promise<RunLock> {
  const names = await mkdir(folder, { recursive: true })
    .then(() => readdir(folder))
    .catch((cause: unknown) => {
      const why = cause instanceof Error ? cause.message : String(cause);
      const message = `${folder}: cannot be made (${why}); give --out another folder`;
      throw new TributaryError("folder-in-use", message, { cause });
    });
  const ours = [...Object.values(sweepFiles), "runs", "lock"];
  const foreign = names.filter(
    (name) => !ours.some((own) => name === own || (name.startsWith(`${own}.`) && own !== "runs")),
  );
  if (foreign.length > 0 && !names.includes(sweepFiles.sweep)) {
    const shown = `${foreign.slice(0, 3).join(", ")}${foreign.length > 3 ? " and more" : ""}`;
    throw new TributaryError(
      "folder-in-use",
      `${folder}: is no folder of a sweep and holds ${shown}; give --out an empty or new folder`,
    );
  }
  const lock = lockRun(folder);
  if (fresh && names.includes(sweepFiles.sweep)) {
    for (const name of ours.filter((own) => own !== "lock"))
      await rm(join(folder, name), { recursive: true, force: true });
  }
  return lock;
}

/** What the folder of a run holds so far; nothing where it has not begun or its files are damaged. */
export async function readRecord({ job: { out } }: Pick<SweepRun, "job">): Promise<RunRecord> {
  try {
    const threads = (await readResolvedJob(out))?.threads;
    return {
      rounds: await readRounds(out),
      summary: await readSummary(out),
      ...(threads === "auto" ? {} : { threads }),
    };
  } catch (error) {
    if (error instanceof TributaryError && error.code === "run-damaged") return { rounds: [] };
    throw error;
  }
}

/**
 * The runs as they go on: with the threads that those begun have. Throws JobError that names every key in which a run that is
 * there was made otherwise.
 */
export async function settled({ folder, runs }: Pick<SweepPlan, "folder" | "runs">): Promise<SweepRun[]> {
  const problems = new Map<string, Problem>();
  const found: SweepRun[] = [];
  for (const run of runs) {
    const before = await readResolvedJob(run.job.out);
    const job = before === undefined ? run.job : { ...run.job, threads: before.threads };
    found.push({ ...run, job });
    for (const { path, before: old, now } of before === undefined ? [] : jobDifferences(before, job)) {
      const problem: Problem = {
        path,
        got: described(now),
        expected: `${described(old)} as in the runs that ${folder} has of ${run.method}`,
        next: "give --out another folder, or --fresh to start anew",
      };
      problems.set(problemLine(problem), problem);
    }
  }
  if (problems.size > 0) throw new JobError([...problems.values()]);
  return found;
}

/** Writes what is known of a sweep: the rows of its runs and the tables over them. */
export async function writeResults(
  plan: SweepPlan,
  rows: readonly RunRow[],
  machine: SweepMachine,
): Promise<void> {
  const { name, methods, partitions, seeds, budget, metric, protocol, workers, runs } = plan;
  const figures = figuresOf(plan).map((figure) => headOf(figure));
  const document: SweepDocument = {
    schema: 1,
    name,
    methods,
    partitions,
    seeds,
    budget,
    metric,
    metricProtocol: protocol,
    workers,
    machine,
    runs: runs.map(({ id, method, partition, seed, job }) => {
      const { out: _, ...keys } = job;
      return { run: id, method, partition, seed, job: keys };
    }),
    rows,
    table: cellsOf(plan, rows).map(({ spreads, ...cell }) => ({
      ...cell,
      figures: Object.fromEntries(spreads.flatMap((spread, i) => (spread ? [[figures[i], spread]] : []))),
    })),
  };
  const where = machineText(machine);
  const texts = [
    [sweepFiles.sweep, `${JSON.stringify(document, undefined, 2)}\n`],
    [sweepFiles.runs, runsCsv(rows)],
    [sweepFiles.csv, tableCsv(plan, rows)],
    [sweepFiles.markdown, tableMarkdown(plan, rows, where)],
  ] as const;
  for (const [file, text] of texts)
    await writeFileAtomic(join(plan.folder, file), new TextEncoder().encode(text));
}

/** A machine in a few words. */
export function machineText({ processor, cores, memoryBytes }: SweepMachine): string {
  return `${processor}, ${cores} ${cores === 1 ? "core" : "cores"}, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB`;
}
