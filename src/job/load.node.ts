import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, isAbsolute, join, relative, resolve } from "node:path";
import { stringify } from "yaml";
import { TributaryError } from "../errors.ts";
import { hubReferenceText, parseHubReference } from "../hub/reference.ts";
import { checkJob } from "./check.ts";
import { type TypedFlag, withFlags } from "./flags.ts";
import type { Job } from "./job.ts";
import { parseJobText } from "./job-text.ts";
import { described, JobError, type PlaceOf } from "./problem.ts";

/** Name of the resolved job in a run folder. */
export const resolvedJobName = "job.resolved.yaml";

export interface LoadJobOptions {
  /** A job file, or a run folder whose job goes on; flags alone where absent. */
  readonly path?: string;
  readonly flags?: readonly TypedFlag[];
  /** Folder that paths in flags are relative to. */
  readonly cwd: string;
}

/** A checked job; its paths are absolute, and `out` is set. */
export interface LoadedJob {
  readonly job: Job & { readonly out: string };
}

/**
 * Reads a job, lays the flags over it and checks the whole. Throws JobError with every problem, or TributaryError
 * `missing-file` or `job-syntax`.
 */
export async function loadJob({ path, flags = [], cwd }: LoadJobOptions): Promise<LoadedJob> {
  const { value, placeOf } =
    path === undefined ? { value: { schema: 1 }, placeOf: () => undefined } : await readJobText(path, cwd);
  const typed = new Set(flags.map((flag) => flag.path));
  const overlaid = withFlags(
    value,
    flags.map((flag) =>
      isPathKey(flag.path)
        ? { ...flag, texts: flag.texts.flatMap((value) => absolute(flag.path, value, cwd)) }
        : flag,
    ),
  );
  const job = checkJob(overlaid, (at) => (typed.has(at) ? `--${at}` : placeOf(at)));
  return { job: { ...job, out: job.out ?? resolve(cwd, "runs", job.name) } };
}

/**
 * A job as its file has it, with absolute paths and a name, not yet checked. Throws TributaryError `missing-file` or
 * `job-syntax`, or JobError where the file holds no keys.
 */
export async function readJobText(path: string, cwd: string): Promise<SectionText> {
  const file = await jobFile(resolve(cwd, path));
  const { value, placeOf } = await readSection(file, cwd, "model and data");
  return { value: { name: nameOf(file), ...withAbsolutePaths(value, dirname(file)) }, placeOf };
}

/** A file of keys, and the line of each. */
export interface SectionText {
  readonly value: Readonly<Record<string, unknown>>;
  readonly placeOf: PlaceOf;
}

/** Reads a YAML or JSON file of keys such as `keys` names. */
export async function readSection(file: string, cwd: string, keys: string): Promise<SectionText> {
  const shown = relativeTo(cwd, file);
  const { value, placeOf } = parseJobText(await read(file), shown);
  if (isSection(value)) return { value: sectionOf(value), placeOf };
  throw new JobError([
    { path: "", got: described(value), expected: `keys such as ${keys}`, next: `correct ${shown}` },
  ]);
}

/** Keys of a job whose paths are relative to a folder, with absolute ones. */
export function withAbsolutePaths(
  keys: Readonly<Record<string, unknown>>,
  folder: string,
): Readonly<Record<string, unknown>> {
  return sectionOf(mapPaths(keys, (path, key) => placed(key, path, folder)));
}

/** The job of a run folder, its paths made absolute. */
export async function readResolvedJob(folder: string): Promise<Job | undefined> {
  const file = join(folder, resolvedJobName);
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const { value, placeOf } = parseJobText(text, file);
  return checkJob(withAbsolutePaths(sectionOf(value), folder), placeOf);
}

/** The job as a run folder keeps it: paths relative to the folder, so that both may move together. */
export function resolvedJobText(job: Job, folder: string): string {
  return stringify(
    mapPaths(job, (path) => (path.startsWith("hf://") ? path : relative(folder, path) || ".")),
  );
}

const pathKeys: readonly string[] = [
  "model",
  "data.path",
  "data.splits.validation",
  "data.splits.test",
  "adapter.from",
  "out",
];

function isPathKey(path: string): boolean {
  return pathKeys.includes(path);
}

/** A value with every path in it changed. A share in place of a file of its own stays. */
function mapPaths(value: unknown, change: (path: string, key: string) => string, at = ""): unknown {
  if (typeof value === "string") return isPathKey(at) && value !== "" ? change(value, at) : value;
  if (Array.isArray(value)) return value.map((item: unknown) => mapPaths(item, change, at));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      mapPaths(inner, change, at === "" ? key : `${at}.${key}`),
    ]),
  );
}

function absolute(path: string, text: string, cwd: string): string[] {
  if (path.startsWith("data.splits.") && Number.isFinite(Number(text))) return [text];
  const parts = path === "data.path" ? text.split(",") : [text];
  return parts.map((part) => placed(path, part, cwd));
}

/** A path of a job made absolute, or a reference to the hub. */
function placed(key: string, path: string, folder: string): string {
  if (key === "model" || key === "adapter.from") return placedModel(path, folder);
  return path.startsWith("hf://") ? path : resolve(folder, path);
}

/**
 * The absolute path of a model or an adapter, or its reference on the hub, which begins with hf://. `org/name` means the hub where the
 * working folder has neither that folder nor one called `org`.
 */
export function placedModel(path: string, cwd: string): string {
  if (path.startsWith("hf://")) return path;
  const full = resolve(cwd, path);
  const reference = existsSync(full) || existsSync(dirname(full)) ? undefined : parseHubReference(path);
  return reference === undefined ? full : hubReferenceText(reference);
}

async function jobFile(path: string): Promise<string> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    throw new TributaryError(
      "missing-file",
      `${path}: no such job file; give the path of a job, or make one with tributary init`,
    );
  }
  if (!found.isDirectory()) return path;
  for (const name of [resolvedJobName, "job.yaml", "job.json"]) {
    const inside = join(path, name);
    if ((await stat(inside).catch(() => undefined))?.isFile()) return inside;
  }
  throw new TributaryError(
    "missing-file",
    `${path}: has neither ${resolvedJobName} nor job.yaml; give the path of a job file`,
  );
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why =
      code === "ENOENT" ? "no such file; check the path" : `cannot be read (${code}); check its permissions`;
    throw new TributaryError("missing-file", `${file}: ${why}`, { cause });
  }
}

/** A name for a file of keys: its own, or that of its folder where it is called as all of its kind are. */
export function nameOf(file: string): string {
  const stem = basename(file, extname(file));
  const named = ["job", "job.resolved", "sweep"].includes(stem) ? basename(dirname(file)) : stem;
  return (
    named
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, "-")
      .replaceAll(/^-+|-+$/g, "")
      .slice(0, 64) || "run"
  );
}

function isSection(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function sectionOf(value: unknown): Readonly<Record<string, unknown>> {
  return isSection(value) ? { ...value } : {};
}

function relativeTo(cwd: string, file: string): string {
  const short = relative(cwd, file);
  return short === "" || short.startsWith("..") || isAbsolute(short) ? file : short;
}
