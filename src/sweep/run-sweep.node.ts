import { availableParallelism, cpus, totalmem } from "node:os";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { TributaryError } from "../errors.ts";
import type { JobEvent } from "../job/events.ts";
import { keepJob } from "../job/run-files.node.ts";
import { lockRun } from "../storage/run-lock.ts";
import { runInChild } from "./child.node.ts";
import { isFinished, rowOf } from "./results.ts";
import type { RunRow, SweepMachine, SweepPlan, SweepRun } from "./sweep.ts";
import { openSweepFolder, readRecord, settled, writeResults } from "./sweep-files.node.ts";

/** What happens in a sweep. */
export type SweepEvent =
  | {
      readonly type: "sweep-started";
      readonly name: string;
      readonly folder: string;
      readonly runs: number;
      /** Runs that had finished before. */
      readonly finished: number;
      readonly workers: number;
    }
  | { readonly type: "run-started"; readonly run: SweepRun }
  | { readonly type: "run-event"; readonly run: SweepRun; readonly event: JobEvent }
  | { readonly type: "run-ended"; readonly run: SweepRun; readonly row: RunRow }
  | { readonly type: "sweep-finished"; readonly rows: readonly RunRow[]; readonly machine: SweepMachine };

export interface RunSweepOptions {
  /** The command line of this program: an executable and its arguments before the verb. */
  readonly program: readonly string[];
  readonly versions: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Delete the runs that are there. */
  readonly fresh?: boolean;
  readonly onEvent?: (event: SweepEvent) => void;
}

/**
 * Runs what is not finished of a sweep, side by side and each in a process of its own, and writes its tables after every run.
 * A run that fails leaves its reason in its row; the others go on. Gives the rows in the order of the sweep.
 */
export async function runSweep(
  given: SweepPlan,
  { program, versions, signal, fresh = false, onEvent = () => {} }: RunSweepOptions,
): Promise<readonly RunRow[]> {
  const lock = await openSweepFolder(given.folder, { fresh });
  try {
    const plan = { ...given, runs: await settled(given) };
    const { protocol } = plan;
    const machine = machineOf(versions);
    const rows = new Map<string, RunRow>();
    const waiting: SweepRun[] = [];
    for (const run of plan.runs) {
      const record = await readRecord(run);
      if (isFinished(run, record)) rows.set(run.id, rowOf(run, record, { protocol }));
      else waiting.push(run);
    }
    const inOrder = (): RunRow[] => plan.runs.flatMap(({ id }) => rows.get(id) ?? []);
    let written = writeResults(plan, inOrder(), machine);
    await written;
    const { name, folder, workers } = plan;
    onEvent({ type: "sweep-started", name, folder, runs: plan.runs.length, finished: rows.size, workers });
    const work = async (): Promise<void> => {
      for (let run = waiting.shift(); run !== undefined && !signal.aborted; run = waiting.shift()) {
        const outcome = await runOne(run, { program, signal, onEvent });
        if (outcome.kind === "stopped") return;
        const failure = outcome.kind === "failed" ? outcome.reason : undefined;
        const row = rowOf(run, await readRecord(run), { protocol, failure });
        rows.set(run.id, row);
        // One after the other, so that the files are those of the last run that ended.
        written = written.then(() => writeResults(plan, inOrder(), machine));
        await written;
        onEvent({ type: "run-ended", run, row });
      }
    };
    await Promise.all(Array.from({ length: workers }, work));
    signal.throwIfAborted();
    onEvent({ type: "sweep-finished", rows: inOrder(), machine });
    return inOrder();
  } finally {
    lock.release();
  }
}

type Outcome = Awaited<ReturnType<typeof runInChild>>;

async function runOne(
  run: SweepRun,
  { program, signal, onEvent }: Required<Pick<RunSweepOptions, "program" | "signal" | "onEvent">>,
): Promise<Outcome> {
  const { out: folder } = run.job;
  try {
    await placeJob(run, signal);
    onEvent({ type: "run-started", run });
    const again = (): Promise<Outcome> =>
      runInChild({ program, folder, signal, onEvent: (event) => onEvent({ type: "run-event", run, event }) });
    const outcome = await again();
    if (outcome.kind !== "failed" || outcome.code !== "run-locked") return outcome;
    // A process that was only starting when its sweep was killed may come in between.
    await placeJob(run, signal);
    return await again();
  } catch (error) {
    if (signal.aborted) return { kind: "stopped" };
    if (error instanceof TributaryError) return { kind: "failed", reason: error.message };
    throw error;
  }
}

/** Puts the job into its run folder. A process that a killed sweep left behind ends within a step; it gets a minute. */
async function placeJob({ job }: SweepRun, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      const lock = lockRun(job.out);
      try {
        return await keepJob(job.out, job);
      } finally {
        lock.release();
      }
    } catch (error) {
      const locked = error instanceof TributaryError && error.code === "run-locked";
      if (!locked || attempt === 240) throw error;
      await delay(250, undefined, { signal });
    }
  }
}

function machineOf(versions: Readonly<Record<string, string>>): SweepMachine {
  return {
    versions,
    processor: cpus()[0]?.model.trim() ?? "unknown processor",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${process.platform} ${process.arch}`,
  };
}
