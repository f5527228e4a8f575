import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import type { Round } from "../federation/round.ts";
import { readRounds } from "../job/run-files.node.ts";
import type { Difference, Spread } from "../sweep/statistics.ts";
import type { Label, MetricProtocol, RunRow, SweepBudget, SweepMachine } from "../sweep/sweep.ts";
import { sweepFiles } from "../sweep/sweep-files.node.ts";

/** What `sweep.json` says, as far as a report reads it. */
export interface SweepDocument {
  readonly name: string;
  readonly methods: readonly Label[];
  readonly partitions: readonly Label[];
  readonly seeds: readonly number[];
  readonly budget: SweepBudget;
  readonly metric: string;
  readonly metricProtocol: MetricProtocol;
  readonly machine: SweepMachine;
  readonly runs: readonly { readonly run: string }[];
  readonly rows: readonly RunRow[];
  /** One entry a method and partition. */
  readonly table: readonly {
    readonly method: string;
    readonly strategy: string;
    readonly partition: string;
    readonly finished: number;
    readonly failed: number;
    readonly difference?: Difference;
    readonly figures: Readonly<Record<string, Spread>>;
  }[];
}

/** A run of a sweep with its rounds. */
export interface SweptRun {
  readonly row: RunRow;
  readonly rounds: readonly Round[];
}

/** What the folder of a sweep tells. */
export interface SweepRecord {
  readonly sweep: SweepDocument;
  readonly runs: readonly SweptRun[];
}

/** Reads the folder of a sweep; undefined where it is none. Throws TributaryError `run-damaged` where a file is. */
export async function readSweep(folder: string): Promise<SweepRecord | undefined> {
  const path = join(folder, sweepFiles.sweep);
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const sweep = documentOf(text, path);
  const runs: SweptRun[] = [];
  for (const row of sweep.rows)
    runs.push({ row, rounds: await readRounds(join(folder, "runs", ...row.run.split("/"))) });
  return { sweep, runs };
}

function documentOf(text: string, path: string): SweepDocument {
  let found: Partial<SweepDocument> | null;
  try {
    found = JSON.parse(text);
  } catch (cause) {
    throw damaged(path, "it is no JSON", cause);
  }
  const { name, methods, partitions, seeds, budget, metric, metricProtocol, machine, runs, rows, table } =
    found ?? {};
  const lists = { methods, partitions, seeds, runs, rows, table };
  const missing = Object.entries(lists).flatMap(([key, value]) => (Array.isArray(value) ? [] : [key]));
  if (
    missing.length > 0 ||
    !(name && methods && partitions && seeds && budget && metric && metricProtocol && machine && runs) ||
    !(rows && table)
  )
    throw damaged(path, `it has no ${missing.join(", ") || "name, budget, metric or machine"}`);
  return { name, methods, partitions, seeds, budget, metric, metricProtocol, machine, runs, rows, table };
}

function damaged(path: string, why: string, cause?: unknown): TributaryError {
  return new TributaryError(
    "run-damaged",
    `${path}: is damaged (${why}); run the sweep again, which writes it anew from its runs`,
    { cause },
  );
}
