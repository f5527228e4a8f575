import { checkJob } from "../job/check.ts";
import type { Job } from "../job/job.ts";
import { JobError, type PlaceOf, type Problem, problemLine } from "../job/problem.ts";
import { jobJsonSchema } from "../job/schema.ts";
import { valueAt } from "../job/schema-node.ts";
import { bytesOf, labelsOf } from "./check.ts";
import { laidOver, spelledOut } from "./overlay.ts";
import type { JobKeys, Label, Sweep } from "./sweep.ts";

/** A run whose job is put together and not yet checked. */
export interface Draft {
  readonly method: Label;
  readonly partition: Label;
  readonly seed: number;
  readonly raw: JobKeys;
  /** What the job was put together from, the last word first. */
  readonly sources: readonly Source[];
}

interface Source {
  readonly keys: JobKeys;
  /** The key of the file that a key of the job stands at. */
  at(key: string): string;
}

/** The runs of a sweep, seed by seed: the keys of each laid over the job that all share. */
export function draftsOf(
  {
    set,
    methods,
    partitions,
    seeds,
    budget,
  }: Pick<Sweep, "set" | "methods" | "partitions" | "seeds" | "budget">,
  base: JobKeys,
): Draft[] {
  const root = jobJsonSchema();
  const common = laidOver(base, set, root);
  const { rounds, bytes, steps } = budget;
  const length = {
    ...(rounds === undefined ? {} : { rounds }),
    ...(bytes === undefined ? {} : { budget: { bytes: bytesOf(bytes) } }),
    ...(steps === undefined ? {} : { budget: { steps } }),
  };
  const own = partitions ?? { [partitionLabel(common)]: valueAt(common, ["partition"]) };
  return seeds.flatMap((seed) =>
    labelsOf(own).flatMap((partition) =>
      labelsOf(methods).map((method): Draft => {
        const keys = methods[method.label] ?? {};
        const divided = { ...common, partition: own[partition.label] };
        return {
          method,
          partition,
          seed,
          raw: { ...laidOver(divided, keys, root), seed, ...length },
          sources: [
            { keys: spelledOut(keys), at: (key) => `methods.${method.label}.${key}` },
            ...(partitions === undefined
              ? []
              : [
                  {
                    keys: { partition: own[partition.label] },
                    at: (key: string) => key.replace("partition", `partitions.${partition.label}`),
                  },
                ]),
            { keys: spelledOut(set), at: (key) => `set.${key}` },
            { keys: base, at: (key) => key },
          ],
        };
      }),
    ),
  );
}

/** The jobs of some runs. Throws JobError with what is wrong with any of them, each thing once and where it is written. */
export function checkDrafts(
  drafts: readonly Draft[],
  placeOf: PlaceOf,
): readonly { readonly draft: Draft; readonly job: Job }[] {
  const problems = new Map<string, Problem>();
  const sound = drafts.flatMap((draft) => {
    try {
      return [{ draft, job: checkJob(draft.raw) }];
    } catch (error) {
      if (!(error instanceof JobError)) throw error;
      for (const problem of error.problems) {
        const found = { ...problem, path: sourceOf(problem.path, draft) };
        problems.set(problemLine(found), found);
      }
      return [];
    }
  });
  if (problems.size > 0) throw new JobError([...problems.values()], placeOf);
  return sound;
}

/** The key of the file that has a key of the job, or the innermost section that should have it. */
function sourceOf(path: string, { sources }: Draft): string {
  const keys = path.split(".");
  for (let depth = keys.length; depth > 0; depth--) {
    const source = sources.find((one) => valueAt(one.keys, keys.slice(0, depth)) !== undefined);
    if (source !== undefined) return source.at(path);
  }
  return path;
}

function partitionLabel(job: JobKeys): string {
  const kind = valueAt(job, ["partition", "kind"]);
  return typeof kind === "string" ? kind : "partition";
}
