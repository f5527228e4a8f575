import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import type { Round } from "../federation/round.ts";
import type { RunHeader, RunSummary } from "../job/events.ts";
import type { Job } from "../job/job.ts";
import { readResolvedJob, resolvedJobName } from "../job/load.node.ts";
import { type RunManifest, readManifest, readRounds, readSummary, runFiles } from "../job/run-files.node.ts";

/** What a run folder tells of its run. */
export interface RunRecord {
  readonly folder: string;
  readonly job: Job;
  /** The job as the folder keeps it. */
  readonly jobText: string;
  readonly manifest: RunManifest;
  readonly rounds: readonly Round[];
  /** Absent in folders that older versions wrote. */
  readonly header?: RunHeader;
  /** Absent before the last round. */
  readonly summary?: RunSummary;
}

/** Reads a run folder. Throws TributaryError `missing-file` where it is none or has no round, `run-damaged` where a file is. */
export async function readRun(folder: string): Promise<RunRecord> {
  const job = await readResolvedJob(folder);
  if (job === undefined) {
    throw new TributaryError(
      "missing-file",
      `${folder}: is no run folder (it has no ${resolvedJobName}); give the folder that tributary run or tributary sweep has written`,
    );
  }
  const manifest = await readManifest(folder);
  const rounds = await readRounds(folder);
  if (rounds.length === 0) {
    throw new TributaryError(
      "missing-file",
      `${folder}: has no round in ${runFiles.rounds} yet; let the run finish its first round`,
    );
  }
  rounds.forEach((round, i) => {
    if (isRound(round)) return;
    const path = join(folder, runFiles.rounds);
    throw damaged(path, `line ${i + 1} is no record of a round`);
  });
  const header = await readHeader(folder);
  const summary = await readSummary(folder);
  return {
    folder,
    job,
    jobText: await readFile(join(folder, resolvedJobName), "utf8"),
    manifest,
    rounds,
    ...(header === undefined ? {} : { header }),
    ...(summary === undefined ? {} : { summary }),
  };
}

async function readHeader(folder: string): Promise<RunHeader | undefined> {
  const path = join(folder, runFiles.header);
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw damaged(path, "it is no JSON");
  }
}

function damaged(path: string, why: string): TributaryError {
  return new TributaryError(
    "run-damaged",
    `${path}: is damaged (${why}); restore it from a copy of the run folder`,
  );
}

/** Whether the parts that plots read are there. */
function isRound(round: Partial<Round> | null): boolean {
  const { number, accepted, rejected, metrics, measurements, evaluation, phases, bytesDown, bytesUp } =
    round ?? {};
  return (
    [number, bytesDown, bytesUp].every((value) => typeof value === "number") &&
    [accepted, rejected].every(Array.isArray) &&
    [metrics, measurements, evaluation, phases].every((part) => typeof part === "object" && part !== null)
  );
}
