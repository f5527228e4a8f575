import { problemsOf } from "../job/check.ts";
import { described, JobError, type PlaceOf, type Problem } from "../job/problem.ts";
import { sweepSchema, sweepSchemaNode } from "./schema.ts";
import type { JobKeys, Label, Sweep } from "./sweep.ts";

/** A sweep with every default filled in; its jobs are not looked at. Throws JobError that lists everything that is wrong. */
export function checkSweep(raw: unknown, placeOf?: PlaceOf): Sweep {
  const parsed = sweepSchema.safeParse(raw);
  const problems = parsed.success
    ? crossProblems(parsed.data)
    : parsed.error.issues.flatMap((issue) => problemsOf(issue, raw, sweepSchemaNode()));
  if (problems.length > 0 || !parsed.success) throw new JobError(problems, placeOf);
  return parsed.data;
}

/** Labels with the names of their folders. */
export function labelsOf(labels: Readonly<Record<string, unknown>>): Label[] {
  return Object.keys(labels).map((label) => ({ label, slug: slugOf(label) }));
}

/** A number of bytes, which a text gives with its unit. */
export function bytesOf(text: number | string): number {
  if (typeof text === "number") return text;
  const [, number = "", unit = ""] = /^([\d.]+) ?([kMGT]?)B$/.exec(text) ?? [];
  return Math.round(Number(number) * 1000 ** ["", "k", "M", "G", "T"].indexOf(unit));
}

function slugOf(label: string): string {
  return label
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "");
}

function crossProblems(sweep: Sweep): Problem[] {
  const { methods, partitions, seeds, budget, set } = sweep;
  const twice = seeds.find((seed, i) => seeds.indexOf(seed) !== i);
  return [
    ...(Object.values(budget).length === 1
      ? []
      : [{ path: "budget", got: described(budget), expected: "one of rounds, bytes and steps" }]),
    ...(twice === undefined ? [] : [{ path: "seeds", got: `${twice} twice`, expected: "each seed once" }]),
    ...labelProblems("methods", methods),
    ...(partitions === undefined ? [] : labelProblems("partitions", partitions)),
    ...keyProblems("set", set, sweep),
    ...Object.entries(methods).flatMap(([label, keys]) => keyProblems(`methods.${label}`, keys, sweep)),
  ];
}

function labelProblems(path: string, labels: Readonly<Record<string, unknown>>): Problem[] {
  const made = labelsOf(labels);
  if (made.length === 0) return [{ path, got: described(labels), expected: "at least one label" }];
  return made.flatMap(({ label, slug }, i) => {
    if (slug === "")
      return [
        { path: `${path}.${label}`, got: described(label), expected: "a label with a letter or a digit" },
      ];
    const other = made.slice(0, i).find((one) => one.slug === slug);
    if (other === undefined) return [];
    const expected = `a label that differs from ${described(other.label)} in its letters and digits`;
    return [{ path: `${path}.${label}`, got: described(label), expected }];
  });
}

/** Keys that the sweep itself decides, and where. */
function keyProblems(path: string, keys: JobKeys, { budget, partitions }: Sweep): Problem[] {
  const decided: Readonly<Record<string, string>> = {
    seed: "the seeds of the sweep",
    budget: "the budget of the sweep",
    out: "the folder of the sweep, which --out names",
    name: "the labels of the sweep",
    generate: "nothing, as a sweep writes no samples",
    ...(budget.rounds === undefined || keys.rounds === budget.rounds ? {} : { rounds: "budget.rounds" }),
    ...(partitions === undefined ? {} : { partition: "the partitions of the sweep" }),
  };
  return Object.entries(keys).flatMap(([key, value]) => {
    const by = decided[key];
    if (by === undefined) return [];
    return [{ path: `${path}.${key}`, got: described(value), expected: by, next: "remove it" }];
  });
}
