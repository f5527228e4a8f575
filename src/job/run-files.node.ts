import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { TributaryError } from "../errors.ts";
import type { FederatedClient } from "../federation/door.ts";
import type { Round } from "../federation/round.ts";
import { fileSource, openFolder, removeTemporaries, writeFileAtomic } from "../formats/files.node.ts";
import { type PeftAdapter, readPeftAdapter, writePeftAdapter } from "../formats/peft.ts";
import { openSafetensors, readTensors, writeSafetensors } from "../formats/safetensors.ts";
import { lockRun } from "../storage/run-lock.ts";
import type { Params } from "../tensor/params.ts";
import { refuseOtherJob } from "./differences.ts";
import type { RunSummary } from "./events.ts";
import type { Job } from "./job.ts";
import { readResolvedJob, resolvedJobName, resolvedJobText } from "./load.node.ts";

/** Names of the files in a run folder. */
export const runFiles: {
  readonly adapter: "adapter";
  readonly trained: "trained.safetensors";
  readonly offset: "base-offset.safetensors";
  readonly rounds: "rounds.jsonl";
  readonly summary: "summary.json";
  readonly journal: "journal.sqlite";
  readonly manifest: "manifest.json";
  readonly header: "header.json";
  readonly tensorboard: "tensorboard";
  readonly report: "report";
} = {
  adapter: "adapter",
  trained: "trained.safetensors",
  offset: "base-offset.safetensors",
  rounds: "rounds.jsonl",
  summary: "summary.json",
  journal: "journal.sqlite",
  manifest: "manifest.json",
  header: "header.json",
  tensorboard: "tensorboard",
  report: "report",
};

/** File of the clients that a run on a server began with. */
export const clientsFile = "clients.json";

/** Throws TributaryError `served-run` where a folder is that of a run on a server, whose clients are not simulated. */
export async function refuseServed(folder: string): Promise<void> {
  if (!(await exists(join(folder, clientsFile)))) return;
  throw new TributaryError(
    "served-run",
    `${folder} holds a run whose silos are on other machines; go on with tributary serve, or give another --out`,
  );
}

/** Whether a folder is that of a run. */
export async function isRunFolder(folder: string): Promise<boolean> {
  return exists(join(folder, resolvedJobName));
}

/**
 * Looks into the folder of a run and returns the job that it goes on with, the number of threads settled. Throws JobError
 * where the folder holds a run of another job, TributaryError `folder-in-use` where it holds other files.
 */
export async function prepareRunFolder<J extends Job>(
  folder: string,
  job: J,
  threads: number,
  { fresh }: { readonly fresh: boolean },
): Promise<J> {
  if (fresh) await clearRun(folder);
  const before = await readResolvedJob(folder);
  if (before === undefined) {
    await refuseForeignFiles(folder);
    return { ...job, threads: job.threads === "auto" ? threads : job.threads };
  }
  const settled = { ...job, threads: job.threads === "auto" ? before.threads : job.threads };
  refuseOtherJob(folder, before, settled);
  return settled;
}

/** Writes the job that a run goes on with, where it is not there yet; the caller holds the run's lock. */
export async function keepJob(folder: string, job: Job): Promise<void> {
  const before = await readResolvedJob(folder);
  if (before !== undefined) refuseOtherJob(folder, before, job);
  const path = join(folder, resolvedJobName);
  const text = resolvedJobText(job, folder);
  if (before !== undefined && (await readFile(path, "utf8")) === text) return;
  await writeFileAtomic(path, new TextEncoder().encode(text));
}

/** Deletes what killed processes left half written beside the files of a run; the caller holds its lock. */
export async function sweepRunFolder(folder: string): Promise<void> {
  await removeTemporaries(folder);
  await removeTemporaries(join(folder, runFiles.adapter));
}

/** The adapter of the last committed round, in PEFT's layout, written file by file. */
export async function writeAdapter(folder: string, adapter: PeftAdapter, readme: string): Promise<void> {
  const files = new Map([...writePeftAdapter(adapter), ["README.md", new TextEncoder().encode(readme)]]);
  for (const [name, bytes] of files) await writeFileAtomic(join(folder, runFiles.adapter, name), bytes);
}

/** Tensors of the run that are no adapter: dense trained weights, or the offset of a changed base. */
export async function writeParams(folder: string, name: string, params: Params): Promise<void> {
  await writeFileAtomic(join(folder, name), writeSafetensors(params));
}

/** The rounds so far, one a line. */
export async function writeRounds(folder: string, rounds: readonly Round[]): Promise<void> {
  const text = rounds.map((round) => `${JSON.stringify(round)}\n`).join("");
  await writeFileAtomic(join(folder, runFiles.rounds), new TextEncoder().encode(text));
}

/** Writes a JSON document of the run folder. */
export async function writeJson(folder: string, name: string, value: object): Promise<void> {
  await writeFileAtomic(
    join(folder, name),
    new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`),
  );
}

/** What a run was made of and with. */
export interface RunManifest {
  readonly versions: Readonly<Record<string, string>>;
  readonly seed: number;
  /** Digest of the base model. */
  readonly base: string;
  readonly clients: readonly FederatedClient[];
}

/**
 * Writes what a run is made of, once. Throws TributaryError `other-run` where the run that goes on was made of something
 * else.
 */
export async function keepManifest(folder: string, manifest: RunManifest): Promise<void> {
  if (!(await exists(join(folder, runFiles.manifest)))) return writeJson(folder, runFiles.manifest, manifest);
  const before = await readManifest(folder);
  const changed = [
    ...(before.base === manifest.base ? [] : ["the weights of the base model"]),
    ...changedSilos(before.clients, manifest.clients),
  ];
  if (changed.length === 0) return;
  throw new TributaryError(
    "other-run",
    `${folder}: the run there was made with other data or another model: ${changed.join("; ")}. Restore them, give --out another folder, or --fresh to start anew`,
  );
}

function changedSilos(before: RunManifest["clients"], now: RunManifest["clients"]): string[] {
  const counts = (clients: RunManifest["clients"]): ReadonlyMap<string, number> =>
    new Map(clients.map(({ id, numExamples }) => [id, numExamples]));
  const [old, next] = [counts(before), counts(now)];
  const changed = [...new Set([...old.keys(), ...next.keys()])].filter((id) => old.get(id) !== next.get(id));
  const shown = changed
    .slice(0, 4)
    .map((id) => `silo ${id} has ${next.get(id) ?? 0} training examples, it had ${old.get(id) ?? 0}`);
  return changed.length > shown.length ? [...shown, `${changed.length - shown.length} more`] : shown;
}

/** The manifest of a run folder. */
export async function readManifest(folder: string): Promise<RunManifest> {
  const text = await readFile(join(folder, runFiles.manifest), "utf8").catch((cause: unknown) => {
    throw new TributaryError(
      "missing-file",
      `${folder}: has no ${runFiles.manifest}; give the folder of a run`,
      { cause },
    );
  });
  return parsed(text, join(folder, runFiles.manifest));
}

/** The summary of a run folder; undefined before the run has finished once. */
export async function readSummary(folder: string): Promise<RunSummary | undefined> {
  const path = join(folder, runFiles.summary);
  return (await exists(path)) ? parsed(await readFile(path, "utf8"), path) : undefined;
}

/** The rounds that a run folder lists. */
export async function readRounds(folder: string): Promise<Round[]> {
  const text = await readFile(join(folder, runFiles.rounds), "utf8").catch(() => "");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => parsed(line, join(folder, runFiles.rounds)));
}

/** The JSON that only a run writes; a damaged file is an error that names it. */
function parsed<T>(text: string, path: string): T {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TributaryError("run-damaged", `${path}: is damaged; restore it from a copy of the run folder`, {
      cause,
    });
  }
}

/** What a run trained: parameters, and what the strategy added to the base. */
export interface Trained {
  readonly params: Params;
  readonly offset: Params;
  readonly adapter?: PeftAdapter;
}

/** Reads what a run has trained so far. */
export async function readTrained(folder: string): Promise<Trained> {
  const offset = (await readParams(join(folder, runFiles.offset))) ?? new Map();
  if (await exists(join(folder, runFiles.adapter, "adapter_config.json"))) {
    const adapter = await readPeftAdapter(await openFolder(join(folder, runFiles.adapter)));
    return { params: adapter.params, offset, adapter };
  }
  const params = await readParams(join(folder, runFiles.trained));
  if (params !== undefined) return { params, offset };
  throw new TributaryError(
    "missing-file",
    `${folder}: holds no trained parameters yet; run its job first: tributary run ${folder}`,
  );
}

async function readParams(path: string): Promise<Params | undefined> {
  if (!(await exists(path))) return undefined;
  return readTensors(await openSafetensors(await fileSource(path), path));
}

async function clearRun(folder: string): Promise<void> {
  if (!(await exists(folder))) return;
  const lock = lockRun(folder);
  try {
    for (const name of await readdir(folder)) {
      if (isOurs(name) && name !== "lock") await rm(join(folder, name), { recursive: true, force: true });
    }
  } finally {
    lock.release();
  }
}

async function refuseForeignFiles(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TributaryError(
      "folder-in-use",
      `${folder}: cannot be made (${why}); give --out another folder`,
      {
        cause,
      },
    );
  });
  const found = await readdir(folder);
  const foreign = found.filter((name) => !isOurs(name));
  if (foreign.length === 0) return;
  throw new TributaryError(
    "folder-in-use",
    `${folder}: is no run folder and holds ${foreign.slice(0, 3).join(", ")}${foreign.length > 3 ? " and more" : ""}; give --out an empty or new folder`,
  );
}

function isOurs(name: string): boolean {
  const known = [...Object.values(runFiles), resolvedJobName, "blobs", "lock"];
  return known.some((file) => name === file || name.startsWith(`${file}-`) || name.startsWith(`${file}.`));
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
