import type { Job } from "./job.ts";
import { described, JobError } from "./problem.ts";

/** Keys that may change between two sittings of one run: they do not touch its result. */
const free: readonly string[] = ["name", "out", "workers", "generate", "evaluation.batchSize"];

/** One key in which two jobs differ. */
export interface Difference {
  readonly path: string;
  readonly before: unknown;
  readonly now: unknown;
}

/** The keys in which two resolved jobs differ, apart from those that do not touch the result. */
export function jobDifferences(before: Job, now: Job): Difference[] {
  const [old, next] = [leaves(before), leaves(now)];
  return [...new Set([...old.keys(), ...next.keys()])]
    .filter((path) => !free.some((key) => path === key || path.startsWith(`${key}.`)))
    .filter((path) => !Object.is(old.get(path), next.get(path)))
    .map((path) => ({ path, before: old.get(path), now: next.get(path) }));
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
      expected: `${described(old)} as in the run in ${folder}`,
      next,
    })),
  );
}

function leaves(value: unknown, path = "", into: Map<string, unknown> = new Map()): Map<string, unknown> {
  if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value))
      leaves(inner, path === "" ? key : `${path}.${key}`, into);
  } else into.set(path, value);
  return into;
}
