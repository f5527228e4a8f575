import { isCommit, isSameFile, parseHubReference } from "../hub/reference.ts";
import type { Job } from "./job.ts";
import { described, JobError } from "./problem.ts";

/** Keys that may change while a run goes on: they do not touch its result. */
const free: readonly string[] = ["name", "out", "workers", "generate", "evaluation.batchSize"];

/** One key in which two jobs differ. */
export interface Difference {
  readonly path: string;
  readonly before: unknown;
  readonly now: unknown;
}

/** The keys in which a resolved job differs from the one before it, apart from those that do not touch the result and from more rounds or a larger budget. */
export function jobDifferences(before: Job, now: Job): Difference[] {
  const [old, next] = [leaves(before), leaves(now)];
  return [...new Set([...old.keys(), ...next.keys()])]
    .filter((path) => !free.some((key) => path === key || path.startsWith(`${key}.`)))
    .filter((path) => !Object.is(old.get(path), next.get(path)))
    .filter((path) => !isPinned(next.get(path), old.get(path)))
    .filter((path) => !isLength(path) || endsEarlier(old.get(path), next.get(path)))
    .map((path) => ({ path, before: old.get(path), now: next.get(path) }));
}

/** Whether two values are one file of the hub, of which at most one is at a commit: a run pins what its job names by a branch. */
function isPinned(asked: unknown, kept: unknown): boolean {
  const [one, other] = [asked, kept].map((value) =>
    typeof value === "string" && value.startsWith("hf://") ? parseHubReference(value) : undefined,
  );
  return (
    one !== undefined &&
    other !== undefined &&
    isSameFile(one, other) &&
    !(isCommit(one.revision) && isCommit(other.revision))
  );
}

/** Whether a key says when a run ends. */
function isLength(path: string): boolean {
  return path === "rounds" || path.startsWith("budget.");
}

/** Whether a run of this length ends before one of the other; absent is without end. */
function endsEarlier(before: unknown, now: unknown): boolean {
  return Number(now ?? Number.POSITIVE_INFINITY) < Number(before ?? Number.POSITIVE_INFINITY);
}

/** Throws JobError that names every key in which a run in `folder` differs from the job that would go on with it. */
export function refuseOtherJob(folder: string, before: Job, now: Job): void {
  const differences = jobDifferences(before, now);
  if (differences.length === 0) return;
  const next = `give --out another folder, or --fresh to start anew in ${folder}`;
  throw new JobError(
    differences.map(({ path, before: old, now: value }) => ({
      path,
      got: described(value),
      expected: `${described(old)}${isLength(path) ? " or more" : ""} as in the run in ${folder}`,
      next,
    })),
  );
}

/**
 * The keys of a job that decide the result of each round, by path; paths of files are left to digests of their content.
 * How long the run is is not one of them.
 */
export function resultKeys(job: Job): Readonly<Record<string, string>> {
  const others = [...free, "rounds", "budget", "model", "data.path", "data.splits", "adapter.from"];
  const kept = [...leaves(job)].filter(
    ([path]) => !others.some((key) => path === key || path.startsWith(`${key}.`)),
  );
  return Object.fromEntries(kept.map(([path, value]) => [path, String(value)]));
}

function leaves(value: unknown, path = "", into: Map<string, unknown> = new Map()): Map<string, unknown> {
  if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value))
      leaves(inner, path === "" ? key : `${path}.${key}`, into);
  } else into.set(path, value);
  return into;
}
